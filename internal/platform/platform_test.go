package platform

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNormalize(t *testing.T) {
	for text, want := range map[string]string{
		"linux/x86_64": "linux/amd64", "linux/AMD64/v1": "linux/amd64", "linux/amd64/v2": "linux/amd64/v2", "/amd64": "linux/amd64",
		"linux/aarch64": "linux/arm64", "linux/arm64/v8": "linux/arm64", "linux/arm64/8": "linux/arm64", "linux/arm64/v8.0": "linux/arm64", "linux/arm64/v8.2": "linux/arm64/v8.2", "linux/arm64/9": "linux/arm64/v9",
		"linux/arm": "linux/arm/v7", "linux/arm/6": "linux/arm/v6", "linux/armhf": "linux/arm/v7", "linux/armel": "linux/arm/v6",
		"linux/i386": "linux/386", "macos/arm64": "darwin/arm64", "Windows/amd64": "windows/amd64", "linux/ppc64le/POWER9": "linux/ppc64le/power9",
	} {
		p, err := v1.ParsePlatform(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, Normalize(*p).String(), text)
	}
}
