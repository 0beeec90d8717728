package tagging

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRepoTag(t *testing.T) {
	for image, want := range map[string]string{
		ecr + ":name-" + hash:       ecr + ":name-" + hash,
		ecr + ":name-" + hash + sha: ecr + ":name-" + hash,
		"localhost:5000/x:t":        "localhost:5000/x:t",
		"debian:bookworm":           "docker.io/library/debian:bookworm",
	} {
		got, err := RepoTag(image)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, image := range []string{"", ecr, ecr + sha, "a/../b:t"} {
		_, err := RepoTag(image)
		require.ErrorIs(t, err, ErrReference, image)
	}
}
