// Package platform knows the names of platforms.
package platform

import (
	"cmp"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Normalize returns a platform by the names that containerd uses (database.go in
// https://github.com/containerd/platforms). What does not state a system means linux.
func Normalize(p v1.Platform) v1.Platform {
	p.OS, p.Architecture, p.Variant = cmp.Or(strings.ToLower(p.OS), "linux"), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	if p.OS == "macos" {
		p.OS = "darwin"
	}
	switch p.Architecture {
	case "i386":
		p.Architecture, p.Variant = "386", ""
	case "x86_64", "x86-64", "amd64":
		p.Architecture = "amd64"
		if p.Variant == "v1" {
			p.Variant = ""
		}
	case "aarch64", "arm64":
		p.Architecture = "arm64"
		switch p.Variant {
		case "8", "v8", "v8.0":
			p.Variant = ""
		case "9", "9.0", "v9.0":
			p.Variant = "v9"
		}
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	case "arm":
		switch p.Variant {
		case "":
			p.Variant = "v7"
		case "5", "6", "7", "8":
			p.Variant = "v" + p.Variant
		}
	}
	return p
}
