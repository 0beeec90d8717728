package naming

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/tagging"
)

func parse(t *testing.T, args ...string) *Flags {
	t.Helper()
	f, set := &Flags{}, flag.NewFlagSet("", flag.ContinueOnError)
	f.Register(set)
	f.RegisterMirrors(set, "")
	require.NoError(t, set.Parse(args))
	return f
}

// Programs that stock and programs that load have the same default.
func TestBranch(t *testing.T) {
	for _, c := range []struct {
		args        []string
		given, want string
		err         string
	}{
		{nil, "", "main", ""},
		{nil, "release/2.9", "release/2.9", ""},
		{nil, "nightly", "", "-rules BRANCH=SUFFIX, or leave suffixes out with -naming strip+nosuffix"},
		{[]string{"-naming", "tag+repository"}, "nightly", "", "-naming tag+repository+nosuffix"},
		{[]string{"-naming", "tag+nosuffix"}, "", "", ""},
		{[]string{"-naming", "tag+nosuffix"}, "nightly", "nightly", ""},
		{[]string{"-rules", "trunk=dev"}, "", "", "-branch is required"},
		{[]string{"-rules", "trunk=dev"}, "trunk", "trunk", ""},
		{[]string{"-rules", "*=*"}, "a--b", "", "-rules BRANCH=SUFFIX"},
	} {
		got, err := parse(t, c.args...).Branch(c.given)
		if c.err != "" {
			require.ErrorIs(t, err, tagging.ErrBranch)
			assert.ErrorContains(t, err, c.err)
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, c.want, got)
	}
}

func TestRemark(t *testing.T) {
	const hashed, slim, alpine = "x:a-2f5ec0d", "python:3.12-slim", "python:3.12-alpine"
	for _, c := range []struct {
		args, images []string
		about        string
	}{
		{nil, []string{hashed, "x:latest", "", "no reference"}, ""},
		{nil, []string{hashed, slim, alpine}, slim},
		{nil, []string{alpine, slim}, alpine},
		{[]string{"-naming", "strip"}, []string{slim}, ""},
		{[]string{"-naming", "tag"}, []string{slim}, ""},
		{[]string{"-naming", "strip+repository"}, []string{slim}, ""},
		{[]string{"-name", "x"}, []string{slim}, ""},
		{[]string{"-rules", "main=x"}, []string{slim}, slim},
	} {
		text := parse(t, c.args...).Remark(c.images, "main")
		if c.about == "" {
			assert.Empty(t, text, "%v", c)
			continue
		}
		assert.Contains(t, text, `"`+c.about+`"`)
		assert.Contains(t, text, "-naming tag")
	}
}

// Where a name cannot be made of a tag, one can be given.
func TestNamesNameTheFlag(t *testing.T) {
	const digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for image, hint := range map[string]bool{"x" + digest: true, "x:a..b-c": true, "x": false, "": false, "a/../b:t": false} {
		_, err := parse(t).Names(image, "main", "")
		require.ErrorIs(t, err, tagging.ErrReference)
		if hint {
			assert.ErrorContains(t, err, "-name NAME", image)
		} else {
			assert.NotContains(t, err.Error(), "-name NAME", image)
		}
	}
	_, err := parse(t, "-naming", "tag+platform").Names("x:t", "main", "")
	require.ErrorIs(t, err, tagging.ErrScheme)
	assert.ErrorContains(t, err, "-platform")
}

func TestCheck(t *testing.T) {
	require.NoError(t, parse(t, "-name", "x").Check([]string{"a:b"}))
	require.Error(t, parse(t, "-name", "x").Check(nil))
	require.Error(t, parse(t, "-name", "x").Check([]string{"a:b", "a:c"}))
	require.ErrorIs(t, parse(t, "-name", "../x").Check([]string{"a:b"}), tagging.ErrScheme)
	require.ErrorIs(t, parse(t, "-mirror", "x").Check([]string{"a:b"}), tagging.ErrMirror)
	f := parse(t, "-mirror", "m.io/x", "-mirror", "docker.io=n.io")
	require.NoError(t, f.Check([]string{"a:b", "a:c"}))
	mirrors, err := f.Mirrors.Mirrors("a:b")
	require.NoError(t, err)
	assert.Equal(t, []string{"m.io/x:b", "n.io/library/a:b"}, mirrors)
	require.ErrorIs(t, f.Check([]string{"a:b", "b:c"}), tagging.ErrMirror)
	require.ErrorIs(t, f.CheckMirrors([]string{"a:b", "b:c"}), tagging.ErrMirror)
}
