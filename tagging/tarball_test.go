package tagging

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTarball(t *testing.T) {
	image := ecr + ":pytorch-linux-noble-rocm-n-py3-" + hash
	for branch, want := range map[string]string{
		"main":        "pytorch-linux-noble-rocm-n-py3_main.tar",
		"release/2.9": "pytorch-linux-noble-rocm-n-py3_release.tar",
	} {
		got, err := Tarball(image, branch, nil)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}

	_, err := Tarball("", "main", nil)
	require.ErrorIs(t, err, ErrReference)
	_, err = Tarball(image, "nightly", nil)
	require.ErrorIs(t, err, ErrBranch)
}

// The longest tag with the longest suffix must still be a file name, with room
// for what a writer puts around it in a temporary name.
func TestLongestTarballFitsInAFileName(t *testing.T) {
	rules := Rules{{Branch: "main", Suffix: strings.Repeat("s", 64)}}
	got, err := Tarball("x:"+strings.Repeat("t", 128), "main", rules)
	require.NoError(t, err)
	assert.LessOrEqual(t, len(got), 200)
}
