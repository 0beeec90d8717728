package tagging

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMirror(t *testing.T) {
	for _, c := range []struct{ image, repository, want string }{
		{ecr + ":name-" + hash, "ghcr.io/pytorch/ci-image", "ghcr.io/pytorch/ci-image:name-" + hash},
		{"localhost:5000/x:name-" + hash, "localhost:5001/y/z", "localhost:5001/y/z:name-" + hash},
		{ecr + ":name-" + hash + sha, "ghcr.io/pytorch/ci-image", "ghcr.io/pytorch/ci-image:name-" + hash + sha},
		{"x.io/a" + sha, "ghcr.io/b", "ghcr.io/b" + sha},
		{"x:t", "library/debian", "docker.io/library/debian:t"},
		{"debian:bookworm", "mirror.example.com/library/debian", "mirror.example.com/library/debian:bookworm"},
	} {
		got, err := Mirror(c.image, c.repository)
		require.NoError(t, err)
		assert.Equal(t, c.want, got)
	}
}

func TestMirrorRefuses(t *testing.T) {
	for _, c := range []struct{ image, repository, reason string }{
		{"", "ghcr.io/pytorch/ci-image", "it is empty"},
		{ecr, "ghcr.io/pytorch/ci-image", "it has no tag"},
		{"x:t", "", "mirror repository"},
		{"x:t", "ghcr.io/a/../b", "mirror repository"},
		{"x:t", "ghcr.io", "want HOST/PATH"},
		{"x:t", "ghcr.io/a:tag", "has a tag or a digest"},
		{"x:t", "ghcr.io/a" + sha, "has a tag or a digest"},
		{"x:t", "https://ghcr.io/a", "mirror repository"},
	} {
		got, err := Mirror(c.image, c.repository)
		require.ErrorIs(t, err, ErrReference)
		assert.ErrorContains(t, err, c.reason)
		assert.Empty(t, got)
	}
}

// A malformed reference has an error that says what to change, without the password in it.
func TestReferenceIsExplained(t *testing.T) {
	for image, says := range map[string]string{
		"https://ghcr.io/a/b:t":         `leave "https://" out`,
		"docker://ghcr.io/a/b:t":        `leave "docker://" out`,
		"ghcr.io/a/b:one:two":           `it has two tags, "one" and "two"`,
		"ghcr.io/Org/b:t":               `in lower case: "ghcr.io/org/b"`,
		"Org/b:t":                       `in lower case: "org/b"`,
		"ghcr.io/a/b:t ":                "leave out the spaces",
		"ghcr.io/a/b/:t":                "leave out the slash at the end",
		"user:topsecret@ghcr.io/a/b:t":  `"***@ghcr.io/a/b:t": invalid reference format: leave out what is before the "@"`,
		"https://u:topsecret@ghcr.io/a": `"https://***@ghcr.io/a"`,
	} {
		_, err := Scheme{}.Names(image, "main", "")
		require.ErrorIs(t, err, ErrReference)
		assert.ErrorContains(t, err, says)
		assert.NotContains(t, err.Error(), "topsecret")
	}
}

func FuzzMirror(f *testing.F) {
	f.Add("x:t", "ghcr.io/a/b")
	f.Add(ecr+":a-"+hash+sha, "localhost:5000/x")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, image, repository string) {
		mirror, err := Mirror(image, repository)
		if err != nil {
			require.ErrorIs(t, err, ErrReference)
			return
		}
		// What comes out goes in again: same name, same mirror.
		again, err := Mirror(mirror, repository)
		require.NoError(t, err)
		require.Equal(t, mirror, again)
	})
}
func TestRepoTag(t *testing.T) {
	for image, want := range map[string]string{
		ecr + ":name-" + hash:       ecr + ":name-" + hash,
		ecr + ":name-" + hash + sha: ecr + ":name-" + hash,
		"localhost:5000/x:t":        "localhost:5000/x:t",
		"debian:bookworm":           "docker.io/library/debian:bookworm",
		ecr + sha:                   ecr + ":digest-" + strings.TrimPrefix(sha, "@sha256:"),
	} {
		got, err := RepoTag(image)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, image := range []string{"", ecr, ecr + "@sha256:abc", "a/../b:t"} {
		_, err := RepoTag(image)
		require.ErrorIs(t, err, ErrReference, image)
	}
}
