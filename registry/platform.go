package registry

import (
	"fmt"
	"regexp"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// DefaultPlatform returns linux/amd64.
func DefaultPlatform() v1.Platform { return v1.Platform{OS: "linux", Architecture: "amd64"} }

var platforms = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?$`)

// ParsePlatform reads OS/ARCH or OS/ARCH/VARIANT, as in linux/arm64.
func ParsePlatform(s string) (v1.Platform, error) {
	if !platforms.MatchString(s) {
		return v1.Platform{}, fmt.Errorf("platform %q: want OS/ARCH or OS/ARCH/VARIANT, as in linux/amd64", s)
	}
	p, err := v1.ParsePlatform(s)
	if err != nil {
		return v1.Platform{}, fmt.Errorf("platform %q: %w", s, err)
	}
	return *p, nil
}

// attestation is what BuildKit marks manifests with that are no image but say
// something about one (https://docs.docker.com/build/metadata/attestations/attestation-storage/).
const attestation = "vnd.docker.reference.type"

// maxListed is how many platforms an error lists.
const maxListed = 20

// choose returns the first image in an index for the platform. Like the field's
// other tools it takes a descriptor without a platform as linux/amd64.
func choose(index *v1.IndexManifest, want v1.Platform) (v1.Descriptor, error) {
	var have []string
	for _, d := range index.Manifests {
		if !d.MediaType.IsImage() || d.Annotations[attestation] != "" {
			continue
		}
		p := DefaultPlatform()
		if d.Platform != nil {
			p = *d.Platform
		}
		if matches(p, want) {
			return d, nil
		}
		if have = append(have, p.String()); len(have) == maxListed {
			have = append(have, "…")
			break
		}
	}
	if len(have) == 0 {
		return v1.Descriptor{}, fmt.Errorf("the index lists no image at all, wanted is %s", want)
	}
	return v1.Descriptor{}, fmt.Errorf("wanted is %s, the index has %s", want, strings.Join(have, ", "))
}

// matches: what want leaves open may be anything, and arm64 without a variant
// is v8, the only one there was for long.
func matches(have, want v1.Platform) bool {
	if have.Architecture == "arm64" && have.Variant == "" {
		have.Variant = "v8"
	}
	return have.Satisfies(want)
}
