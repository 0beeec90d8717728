package tagging

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mirrorRules parses rules and requires that they print as what they were.
func mirrorRules(t *testing.T, texts ...string) (rules MirrorRules) {
	t.Helper()
	for _, text := range texts {
		r, err := ParseMirrorRule(text)
		require.NoError(t, err, text)
		again, err := ParseMirrorRule(r.String())
		require.NoError(t, err, text)
		assert.Equal(t, r, again)
		rules = append(rules, r)
	}
	return rules
}

func TestMirrorRules(t *testing.T) {
	for _, c := range []struct {
		rules []string
		image string
		want  []string
	}{
		{nil, "debian:12", nil},
		{[]string{"docker.io=mirror.example"}, "debian:12", []string{"mirror.example/library/debian:12"}},
		{[]string{"docker.io=mirror.example:5000"}, "docker.io/team/tool:1" + sha, []string{"mirror.example:5000/team/tool:1" + sha}},
		{[]string{"index.docker.io=localhost/hub"}, "team/tool" + sha, []string{"localhost/hub/team/tool" + sha}},
		{[]string{"docker.io=mirror.example"}, "ghcr.io/library/debian:12", nil},
		{[]string{"docker.io/library/debian=mirror.example/x"}, "debian:12", []string{"mirror.example/x:12"}},
		{[]string{"ghcr.io/pytorch/ci-image=m.io/a/b"}, "ghcr.io/pytorch/ci-image:t", []string{"m.io/a/b:t"}},
		{[]string{"ghcr.io/pytorch/ci-image=m.io/a/b"}, "ghcr.io/pytorch/ci-image/sub:t", []string{"m.io/a/b/sub:t"}},
		// Hosts have no case.
		{[]string{"Docker.io=Mirror.example/hub"}, "debian:12", []string{"mirror.example/hub/library/debian:12"}},
		{[]string{"Index.Docker.io/library=m.io/l"}, "debian:12", []string{"m.io/l/debian:12"}},
		{[]string{"ghcr.io/org=m.io"}, "GHCR.io/org/x:T", []string{"m.io/x:T"}},
		// Elements of a path, not letters.
		{[]string{"ghcr.io/pytorch/ci=m.io/a"}, "ghcr.io/pytorch/ci-image:t", nil},
		{[]string{"ghcr.io=m.io", "ghcr.io/py=m.io/py2"}, "ghcr.io:443/pytorch/x:t", nil},
		{[]string{"localhost=m.io"}, "localhost:5000/x:t", nil},
		{[]string{"localhost:5000=[::1]:5001/y"}, "localhost:5000/x:t", []string{"[::1]:5001/y/x:t"}},
		// Every one, in the order given, each once, and never the image's own.
		{[]string{"docker.io=a.io", "docker.io/library=b.io/l", "docker.io=c.io", "docker.io/library/debian=a.io/library/debian", "docker.io=docker.io"}, "debian:12",
			[]string{"a.io/library/debian:12", "b.io/l/debian:12", "c.io/library/debian:12"}},
		{[]string{"ghcr.io/pytorch/ci-image"}, ecr + ":name-" + hash, []string{"ghcr.io/pytorch/ci-image:name-" + hash}},
	} {
		rules := mirrorRules(t, c.rules...)
		got, err := rules.Mirrors(c.image)
		require.NoError(t, err)
		assert.Equal(t, c.want, got, "%v %s", c.rules, c.image)
		require.NoError(t, rules.Check(c.image))
	}
	_, err := mirrorRules(t, "docker.io=a.io").Mirrors("debian")
	require.ErrorIs(t, err, ErrReference)
	_, err = mirrorRules(t, "docker.io/library/debian=a.io").Mirrors("debian:12")
	require.ErrorIs(t, err, ErrMirror)
	assert.ErrorContains(t, err, "want HOST/PATH on the right")
}

func TestParseMirrorRuleRefuses(t *testing.T) {
	for text, reason := range map[string]string{
		"":                           "mirror repository",
		"ghcr.io":                    "want HOST/PATH",
		"=":                          "begins with no host",
		"docker.io=":                 "begins with no host",
		"=mirror.example":            "begins with no host",
		"docker=mirror.example":      "begins with no host",
		"docker.io=mirror":           "begins with no host",
		"debian=mirror.example/x":    "begins with no host",
		"docker.io=https://m.io":     `leave "https://" out`,
		"docker://docker.io=m.io":    `leave "docker://" out`,
		"docker.io/=m.io":            `leave the "/" at its end out`,
		"docker.io=m.io/":            `leave the "/" at its end out`,
		"docker.io/library/x:t=m.io": "invalid reference format: leave out its tag or digest",
		"docker.io=m.io/x:t":         "invalid reference format: leave out its tag or digest",
		"docker.io=m.io/x@sha256:" + strings.Repeat("a", 64): "leave out its tag or digest",
		"docker.io=m.io:tag":    "leave out its tag or digest",
		"ghcr.io/Py=m.io":       `a repository is written in lower case: "ghcr.io/py"`,
		"docker.io=m.io/a/../b": "invalid reference format",
		"docker.io=m.io/A":      "must be lowercase",
		"docker.io=m.io=n.io":   "invalid reference format",
		"ghcr.io/a:tag":         "has a tag or a digest",
		"https://ghcr.io/a":     "mirror repository",
	} {
		_, err := ParseMirrorRule(text)
		require.ErrorIs(t, err, ErrMirror, text)
		assert.ErrorContains(t, err, reason, text)
	}
	// What could be a password is not repeated.
	for _, text := range []string{"user:secret@m.io/x", "docker.io=user:secret@m.io", "docker.io=https://user:secret@m.io", "secret@d.io=m.io", "docker.io=m.io/x?token=secret", "m.io/x#secret", "secret@https://x=m.io"} {
		_, err := ParseMirrorRule(text)
		require.ErrorIs(t, err, ErrMirror, text)
		assert.NotContains(t, err.Error(), "secret")
	}
}

// One place is never the mirror of two repositories: a tag in it could be either's.
func TestMirrorRulesCheck(t *testing.T) {
	const debian, python, tool = "docker.io/library/debian:l1", "ghcr.io/other/python:l2", "ghcr.io/team/debian:l1"
	for _, c := range []struct {
		rules, images []string
		refused       bool
	}{
		{[]string{"r.io/team/debian"}, []string{debian, python}, true},
		{[]string{"r.io/team/debian"}, []string{debian, "debian:l2", "no reference", ""}, false},
		{[]string{"docker.io=r.io/team", "r.io/x/debian"}, []string{debian, python}, true},
		{[]string{"docker.io/library/debian=r.io/team/debian"}, []string{debian, python}, false},
		{[]string{"docker.io=r.io/hub", "ghcr.io=r.io/ghcr"}, []string{debian, python}, false},
		{[]string{"docker.io=r.io", "ghcr.io=r.io/ghcr"}, []string{debian, python}, false},
		// The same place, whatever the images are.
		{[]string{"docker.io=r.io", "ghcr.io=r.io"}, nil, true},
		{[]string{"docker.io/library/debian=r.io/x", "ghcr.io/other/python=r.io/x"}, []string{debian}, true},
		{[]string{"docker.io=r.io", "docker.io=r.io"}, []string{debian}, false},
		// Different places, in which two images meet.
		{[]string{"docker.io/library=r.io/team", "ghcr.io=r.io"}, []string{debian, tool}, true},
		{[]string{"docker.io/library=r.io/team", "ghcr.io=r.io"}, []string{debian, python}, false},
		{[]string{"docker.io/library/debian=r.io/team/debian", "ghcr.io=r.io"}, []string{tool, debian}, true},
		{[]string{"docker.io/library/debian=r.io"}, []string{debian}, true}, // no path
	} {
		err := mirrorRules(t, c.rules...).Check(c.images...)
		if !c.refused {
			require.NoError(t, err, "%v", c)
			continue
		}
		require.ErrorIs(t, err, ErrMirror, "%v", c)
	}
}

func FuzzMirrorRule(f *testing.F) {
	for _, seed := range []string{"docker.io=mirror.example", "ghcr.io/a/b", "a.io/b=[::1]:5/c", "=", "a/=b/"} {
		f.Add(seed, "debian:12")
	}
	f.Fuzz(func(t *testing.T, text, image string) {
		r, err := ParseMirrorRule(text)
		if err != nil {
			require.ErrorIs(t, err, ErrMirror)
			return
		}
		again, err := ParseMirrorRule(r.String())
		require.NoError(t, err)
		require.Equal(t, r, again)
		mirrors, err := MirrorRules{r}.Mirrors(image)
		if err != nil {
			return
		}
		for _, m := range mirrors {
			_, err := RepoTag(m)
			require.NoError(t, err)
		}
	})
}
