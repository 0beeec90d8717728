package tagging

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	hash = "2f5ec0d8a6f1b4c3d7e9a0b1c2d3e4f5a6b7c8d9"
	ecr  = "308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image"
	sha  = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

func TestName(t *testing.T) {
	for _, c := range []struct{ image, want string }{
		{ecr + ":pytorch-linux-jammy-rocm-n-py3-" + hash, "pytorch-linux-jammy-rocm-n-py3"},
		{ecr + ":pytorch-linux-jammy-rocm-n-py3-benchmarks-" + hash, "pytorch-linux-jammy-rocm-n-py3-benchmarks"},
		{"localhost:5000/ci-image:name-" + hash, "name"},
		{"[::1]:5000/ci-image:name-" + hash, "name"},
		{"registry.example.com:443/a/b/c:one-two", "one"},
		{"debian:bookworm-slim", "bookworm"},
		{"debian:bookworm", "bookworm"},
		{"x:a--b", "a-"},
		{"x:a-", "a"},
		{"x:_-b", "_"},
		{ecr + ":name-" + hash + sha, "name"},
		{"x:" + strings.Repeat("t", 128), strings.Repeat("t", 128)},
	} {
		got, err := Name(c.image)
		require.NoError(t, err, c.image)
		assert.Equal(t, c.want, got, c.image)
	}
}

func TestNameRefuses(t *testing.T) {
	for image, reason := range map[string]string{
		"":                                "it is empty",
		ecr:                               "it has no tag",
		"localhost:5000/ci-image":         "it has no tag",
		ecr + sha:                         "it has a digest but no tag",
		ecr + ":":                         "invalid reference format",
		":name-" + hash:                   "invalid reference format",
		"x:-" + hash:                      "invalid reference format",
		"x:.t-" + hash:                    "invalid reference format",
		"a/../b:t":                        "invalid reference format",
		"a//b:t":                          "invalid reference format",
		"ghcr.io/A/b:t":                   "must be lowercase",
		"x:a/b":                           "invalid reference format",
		"x:a b":                           "invalid reference format",
		"x:a\nb":                          "invalid reference format",
		"x:a\x00b":                        "invalid reference format",
		"https://ghcr.io/x:t":             "invalid reference format",
		"x:a..b-" + hash:                  `contains ".."`,
		"x:" + strings.Repeat("t", 129):   "invalid reference format",
		"x:t@sha256:abc":                  "invalid reference format",
		strings.Repeat("a/", 200) + "b:t": "must not be more than",
	} {
		got, err := Name(image)
		require.ErrorIs(t, err, ErrReference, image)
		assert.ErrorContains(t, err, reason, image)
		assert.Empty(t, got, image)
	}
}

// The grammar lets none of these through as a tag; the check behind it must
// refuse them all the same, since a name becomes a path.
func TestCheckElement(t *testing.T) {
	for _, bad := range []string{"", "..", "a..b", "a/b", `a\b`, "a\x00", ".a", "-a", strings.Repeat("a", 256)} {
		assert.Error(t, checkElement(bad), "%q", bad)
	}
	for _, good := range []string{"a", "_", "a.b", "a-b", strings.Repeat("a", 255)} {
		assert.NoError(t, checkElement(good), "%q", good)
	}
}

func FuzzName(f *testing.F) {
	for _, seed := range []string{"", "x:t", "x:a-b", "a/../b:t", "x:-t", "x:.t", "x:..", "localhost:5000/x:a-b", ecr + ":a-" + hash, "x:a-b" + sha} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, image string) {
		name, err := Name(image)
		if err != nil {
			require.ErrorIs(t, err, ErrReference)
			require.Empty(t, name)
			return
		}
		require.NoError(t, checkElement(name))
		require.Regexp(t, `^[A-Za-z0-9_][A-Za-z0-9_.-]*$`, name)
		require.Contains(t, image, ":"+name)

		tarball, err := Tarball(image, "main", nil)
		require.NoError(t, err)
		require.Equal(t, name+"_main.tar", tarball)
	})
}
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
