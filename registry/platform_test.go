package registry

import (
	"runtime"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// parsedPlatform reads one as v1 does: anything.
func parsedPlatform(t *testing.T, s string) v1.Platform {
	t.Helper()
	p, err := v1.ParsePlatform(s)
	require.NoError(t, err)
	return *p
}

func TestDefaultPlatform(t *testing.T) {
	p := DefaultPlatform()
	assert.Equal(t, "linux", p.OS)
	assert.Equal(t, runtime.GOARCH, p.Architecture)
	assert.Equal(t, p.Architecture == "arm", p.Variant == "v7")
}

// The order of what runs, the nearest first, and what does not: by containerd's
// platforms.Only, of which TestOnly in its compare_test.go has these and more.
func TestDistance(t *testing.T) {
	for want, c := range map[string]struct{ runs, not []string }{
		"linux/amd64":          {[]string{"linux/amd64", "linux/386"}, []string{"linux/amd64/v2", "linux/amd64/v3", "linux/amd64/v4", "linux/arm64", "windows/amd64", "linux/386/x", "linux/amd64/v0", "linux/amd64/odd"}},
		"linux/amd64/v1":       {[]string{"linux/amd64", "linux/386"}, []string{"linux/amd64/v2"}},
		"linux/x86_64":         {[]string{"linux/amd64", "linux/386"}, []string{"linux/amd64/v2"}},
		"linux/amd64/v3":       {[]string{"linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/i386"}, []string{"linux/amd64/v4"}},
		"linux/386":            {[]string{"linux/386"}, []string{"linux/amd64"}},
		"linux/arm":            {[]string{"linux/arm/v7", "linux/arm/v6", "linux/arm/v5"}, []string{"linux/arm/v8", "linux/arm/v4", "linux/arm64", "linux/arm/odd"}},
		"linux/arm/v6":         {[]string{"linux/arm/v6", "linux/arm/v5"}, []string{"linux/arm/v7", "linux/arm"}},
		"linux/arm/v8":         {[]string{"linux/arm/v8", "linux/arm", "linux/armel"}, []string{"linux/arm64"}},
		"linux/armhf":          {[]string{"linux/arm/7", "linux/arm/6"}, []string{"linux/arm/8"}},
		"linux/arm64":          {[]string{"linux/arm64/v8", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"}, []string{"linux/arm64/v8.1", "linux/arm64/v9", "linux/arm/v4"}},
		"linux/aarch64/8":      {[]string{"linux/arm64", "linux/arm"}, []string{"linux/arm64/v9"}},
		"linux/arm64/v8.2":     {[]string{"linux/arm64/v8.2", "linux/arm64/v8.1", "linux/arm64", "linux/arm/v8"}, []string{"linux/arm64/v8.3", "linux/arm64/v9.0"}},
		"linux/arm64/v9":       {[]string{"linux/arm64/v9.0", "linux/arm64/v8.5", "linux/arm64/v8.4", "linux/arm64/v8", "linux/arm/v8"}, []string{"linux/arm64/v9.1", "linux/arm64/v8.6"}},
		"linux/arm64/v9.2":     {[]string{"linux/arm64/v9.2", "linux/arm64/v9.1", "linux/arm64/v9", "linux/arm64/v8.7", "linux/arm64"}, []string{"linux/arm64/v8.8", "linux/arm64/v9.3"}},
		"linux/arm64/v9.6":     {[]string{"linux/arm64/v9.6", "linux/arm64/v8.9"}, []string{"linux/arm64/v9.7"}},
		"linux/arm64/v10":      {[]string{"linux/arm64/v10"}, []string{"linux/arm64", "linux/arm/v7"}},
		"linux/ppc64le":        {[]string{"linux/ppc64le"}, []string{"linux/ppc64le/power9", "linux/ppc64"}},
		"linux/ppc64le/power9": {[]string{"linux/ppc64le/power9", "linux/ppc64le"}, []string{"linux/ppc64le/power10"}},
		"linux/riscv64":        {[]string{"linux/riscv64"}, []string{"linux/riscv64/rva22u64"}},
		"macos/amd64":          {[]string{"darwin/amd64"}, []string{"linux/amd64"}},
		// The numbers of a variant that could take long to count down.
		"linux/amd64/v4294967295": {[]string{"linux/amd64/v4294967295"}, []string{"linux/arm/v4294967295"}},

		"windows/amd64":               {[]string{"windows/amd64:10.0.17763.1"}, []string{"linux/amd64"}},
		"windows/amd64:10.0.17763.9":  {[]string{"windows/amd64:10.0.17763.1"}, []string{"windows/amd64:10.0.20348.1", "windows/amd64:10.0.14393.1", "windows/amd64:6.1.17763", "windows/amd64:odd"}},
		"windows/amd64:10.0.20348":    {[]string{"windows/amd64:10.0.20348.1"}, []string{"windows/amd64:10.0.17763.1", "windows/amd64:10.0.26100.1"}},
		"windows/amd64:10.0.26100.33": {[]string{"windows/amd64:10.0.20348.1"}, []string{"windows/amd64:10.0.17763.1", "windows/amd64:10.0.26200"}},
		"windows/amd64:odd":           {[]string{"windows/amd64:10.0.17763.1"}, nil},
		"linux/amd64:5":               {[]string{"linux/amd64:6"}, nil},
	} {
		last := -1
		for _, have := range c.runs {
			d, ok := distance(parsedPlatform(t, have), parsedPlatform(t, want))
			assert.True(t, ok, "%s runs %s", want, have)
			assert.Greater(t, d, last, "%s: %s is farther than the one before", want, have)
			last = d
		}
		for _, have := range c.not {
			_, ok := distance(parsedPlatform(t, have), parsedPlatform(t, want))
			assert.False(t, ok, "%s does not run %s", want, have)
		}
	}
	for _, c := range []struct {
		os         string
		have, want []string
		runs       bool
	}{
		{"windows", []string{"win32k"}, nil, true},
		{"linux", []string{"win32k"}, nil, false},
		{"linux", []string{"erofs"}, nil, false},
		{"linux", []string{"erofs"}, []string{"other", "erofs"}, true},
		{"linux", nil, []string{"erofs"}, true},
	} {
		_, ok := distance(v1.Platform{OS: c.os, Architecture: "amd64", OSFeatures: c.have}, v1.Platform{OS: c.os, Architecture: "amd64", OSFeatures: c.want})
		assert.Equal(t, c.runs, ok, c)
	}
	_, ok := distance(v1.Platform{Architecture: "AMD64"}, parsedPlatform(t, "linux/amd64"))
	assert.True(t, ok, "a system that is not stated is linux")
}

func TestParsePlatform(t *testing.T) {
	for s, want := range map[string]string{
		"linux/arm64/v8": "linux/arm64/v8", "linux/arm64": "linux/arm64", "linux/arm": "linux/arm", "linux/arm/v7": "linux/arm/v7", "linux/arm/7": "linux/arm/v7",
		"linux/amd64": "linux/amd64", "linux/amd64/v1": "linux/amd64/v1", "linux/amd64/v3": "linux/amd64/v3", "linux/arm64/v8.2": "linux/arm64/v8.2", "linux/arm64/v9.0": "linux/arm64/v9",
		"linux/x86_64": "linux/amd64", "linux/x86-64": "linux/amd64", "linux/aarch64": "linux/arm64", "linux/i386": "linux/386",
		"linux/armhf": "linux/arm/v7", "linux/armel": "linux/arm/v6", "linux/ppc64le": "linux/ppc64le", "macos/arm64": "darwin/arm64",
	} {
		p, err := ParsePlatform(s)
		require.NoError(t, err)
		assert.Equal(t, want, p.String(), s)
	}
	for _, s := range []string{"", "linux", "linux/", "/amd64", "linux/arm64/v8/x", "linux/amd64:10", "Linux/amd64", "linux amd64", "linux/amd64/"} {
		_, err := ParsePlatform(s)
		require.Error(t, err, s)
		assert.ErrorContains(t, err, "want OS/ARCH")
	}
}
