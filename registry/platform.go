package registry

import (
	"cmp"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/internal/platform"
)

// DefaultPlatform returns linux with the architecture that this program was built for;
// for arm the variant v7, as containerd takes it where it knows no other.
func DefaultPlatform() v1.Platform {
	p := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if p.Architecture == "arm" {
		p.Variant = "v7"
	}
	return p
}

var platforms = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9_-]+(/[a-z0-9.]+)?$`)

// ParsePlatform reads OS/ARCH or OS/ARCH/VARIANT, as in linux/arm64. Other names of an
// architecture (x86_64, aarch64, i386, armhf, armel) become those that indexes have.
func ParsePlatform(s string) (v1.Platform, error) {
	if !platforms.MatchString(s) {
		return v1.Platform{}, fmt.Errorf("platform %q: want OS/ARCH or OS/ARCH/VARIANT, as in linux/amd64", s)
	}
	parts := append(strings.Split(s, "/"), "")
	p := v1.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	n := platform.Normalize(p)
	if p.Variant != "" && n.Architecture == p.Architecture && n.Variant == "" {
		return p, nil // as it was asked for: the name of a variant that needs none
	}
	if p.Variant == "" && n.Architecture == p.Architecture {
		n.Variant = "" // asked for none: linux/arm, not linux/arm/v7
	}
	return n, nil
}

// otherArchitecture is the distance of what runs, but is of another architecture.
const otherArchitecture = 1000

// distance returns how far an image's platform is from what was asked for, 0 if it is
// that, and false if it may not run there: which of several is nearest, and which is
// none, is as in containerd's platforms.Only (compare.go in
// https://github.com/containerd/platforms). So an image for more than was asked for never
// runs; one for less does, amd64 runs 386, and arm64 runs arm. An architecture of whose
// variants containerd knows nothing runs its own variant and images without one.
func distance(have, want v1.Platform) (int, bool) {
	have, want = platform.Normalize(have), platform.Normalize(want)
	if have.OS != want.OS || !runsVersion(have, want) || !runsFeatures(have, want) {
		return 0, false
	}
	switch {
	case have.Architecture == want.Architecture && have.Variant == want.Variant:
		return 0, true
	case have.Architecture == want.Architecture:
		return variantDistance(want.Architecture, have.Variant, want.Variant)
	case want.Architecture == "amd64" && have.Architecture == "386":
		return otherArchitecture, have.Variant == ""
	case want.Architecture == "arm64" && have.Architecture == "arm":
		if _, _, known := arm64Version(want.Variant); !known {
			return 0, false
		}
		d, ok := variantDistance("arm", have.Variant, "v8")
		return otherArchitecture + d, ok
	}
	return 0, false
}

// variantDistance is [distance] for variants of one architecture.
func variantDistance(architecture, have, want string) (int, bool) {
	switch architecture {
	case "amd64", "arm":
		lowest := 1
		if architecture == "arm" {
			lowest = 5
		}
		if have == want {
			return 0, true
		}
		h, w := version(cmp.Or(have, "v1")), version(cmp.Or(want, "v1"))
		return w - h, lowest <= h && h <= w
	case "arm64":
		haveMajor, haveMinor, known := arm64Version(have)
		wantMajor, wantMinor, wantKnown := arm64Version(want)
		if !known || !wantKnown {
			return 0, false
		}
		if haveMajor == wantMajor {
			return wantMinor - haveMinor, haveMinor <= wantMinor
		}
		// v9.0 has what v8.5 has, v9.1 what v8.6 has, and so on.
		highest := min(wantMinor+5, 9)
		return wantMinor + 1 + highest - haveMinor, wantMajor == 9 && haveMinor <= highest
	}
	return 1, have == ""
}

// version returns the number in "v7"; -1 if it is none.
func version(variant string) int {
	n, err := strconv.ParseUint(strings.TrimPrefix(variant, "v"), 10, 16)
	if err != nil {
		return -1
	}
	return int(n)
}

// arm64Versions has the form of the variants that are known: v8 to v8.9 and v9 to v9.7.
var arm64Versions = regexp.MustCompile(`^v(?:(8)(?:\.([0-9]))?|(9)(?:\.([0-7]))?)$`)

func arm64Version(variant string) (major, minor int, known bool) {
	m := arm64Versions.FindStringSubmatch(cmp.Or(variant, "v8"))
	if m == nil {
		return 0, 0, false
	}
	return version(m[1] + m[3]), max(0, version(m[2]+m[4])), true
}

// runsFeatures reports whether the machine has the features of the system that the
// image needs. All of Windows' have win32k, and not all state it.
func runsFeatures(have, want v1.Platform) bool {
	for _, f := range have.OSFeatures {
		if !slices.Contains(want.OSFeatures, f) && (have.OS != "windows" || f != "win32k") {
			return false
		}
	}
	return true
}

// The builds of Windows from which on containers of an older one run, oldest first
// (https://learn.microsoft.com/en-us/virtualization/windowscontainers/deploy-containers/version-compatibility).
var stableWindows = []int{20348, 26100} // Server 2022 and 2025

// runsVersion reports whether a version of Windows runs a container of another: before
// Server 2022 only its own build, since then also those back to the long-term release
// before it. A version that is not stated is any. Other systems have none.
func runsVersion(have, want v1.Platform) bool {
	if want.OS != "windows" || want.OSVersion == "" || have.OSVersion == "" {
		return true
	}
	var h, w [3]int // major, minor, build
	if parseVersion(want.OSVersion, &w); w == [3]int{} {
		return true
	}
	parseVersion(have.OSVersion, &h)
	oldest := w[2]
	for i, release := range stableWindows {
		if w[2] >= release {
			oldest = stableWindows[max(0, i-1)]
		}
	}
	return h[0] == w[0] && h[1] == w[1] && oldest <= h[2] && h[2] <= w[2]
}

// parseVersion reads the first three numbers of a version; none if one is missing.
func parseVersion(s string, to *[3]int) {
	parts := strings.Split(s, ".")
	if len(parts) < len(to) {
		return
	}
	var numbers [3]int
	for i := range numbers {
		if numbers[i] = version(parts[i]); numbers[i] < 0 {
			return
		}
	}
	*to = numbers
}
