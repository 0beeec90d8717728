package tagging

import (
	"flag"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestScheme(t *testing.T) {
	const platform = "linux/arm64/v8"
	for _, c := range []struct{ scheme, image, tarball string }{
		{"strip", "ghcr.io/a/b:jammy-2f5e", "jammy_main.tar"},
		{"tag", "ghcr.io/a/b:jammy-2f5e", "jammy-2f5e_main.tar"},
		{"strip+repository", "ghcr.io/a/b:jammy-2f5e", "ghcr.io+a+b@jammy_main.tar"},
		{"tag+repository", "debian:bookworm-slim", "docker.io+library+debian@bookworm-slim_main.tar"},
		{"strip+platform", "ghcr.io/a/b:jammy-2f5e", "jammy@linux+arm64+v8_main.tar"},
		{"tag+nosuffix", "debian:bookworm-slim", "bookworm-slim.tar"},
		{"strip+repository+platform+nosuffix", "ghcr.io/a/b:jammy-2f5e", "ghcr.io+a+b@jammy@linux+arm64+v8.tar"},
		{"tag+repository+platform", "localhost:5000/a:t" + sha, "localhost@5000+a@t@linux+arm64+v8_main.tar"},
	} {
		scheme, err := ParseScheme(c.scheme)
		require.NoError(t, err)
		assert.Equal(t, c.scheme, scheme.String())
		names, err := scheme.Names(c.image, "main", platform)
		require.NoError(t, err)
		repoTag, err := RepoTag(c.image)
		require.NoError(t, err)
		want := Names{Tarball: c.tarball, Group: strings.TrimSuffix(c.tarball, "_main.tar"), Suffix: "main", RepoTag: repoTag}
		if scheme.NoSuffix {
			want.Group, want.Suffix = strings.TrimSuffix(c.tarball, ".tar"), ""
		}
		assert.Equal(t, want, names)
		require.NoError(t, CheckElement(names.Group))
	}
	// The zero value is today's names, which need no platform.
	names, err := Scheme{}.Names(ecr+":jammy-"+hash, "release/2.9", "")
	require.NoError(t, err)
	assert.Equal(t, "jammy_release.tar", names.Tarball)
	assert.Equal(t, "jammy", names.Group)
}

// Without a suffix no branch is needed, and none is refused.
func TestSchemeWithoutSuffix(t *testing.T) {
	for _, branch := range []string{"", "main", "nightly", "../x"} {
		names, err := Scheme{NoSuffix: true}.Names("x:a-b", branch, "")
		require.NoError(t, err, branch)
		assert.Equal(t, "a.tar", names.Tarball)
	}
}

func TestSchemeWithAName(t *testing.T) {
	named := Scheme{Name: "tool_1.2-x"}
	for image, repoTag := range map[string]string{
		"x.io/a:t":          "x.io/a:t",
		"x.io/a:a..b-c":     "x.io/a:a..b-c",
		"x.io/a:t" + sha:    "x.io/a:t",
		"x.io:50/a/b" + sha: "x.io:50/a/b:digest-" + strings.TrimPrefix(sha, "@sha256:"),
		"debian" + sha:      "docker.io/library/debian:digest-" + strings.TrimPrefix(sha, "@sha256:"),
	} {
		names, err := named.Names(image, "main", "")
		require.NoError(t, err, image)
		assert.Equal(t, Names{Tarball: "tool_1.2-x_main.tar", Group: "tool_1.2-x", Suffix: "main", RepoTag: repoTag}, names)
	}
	names, err := Scheme{Name: "x", Repository: true, Platform: true, NoSuffix: true}.Names("a.io/b"+sha, "", "linux/arm64")
	require.NoError(t, err)
	assert.Equal(t, "a.io+b@x@linux+arm64.tar", names.Tarball)

	for _, image := range []string{"", "x.io/a", "a/../b:t"} {
		_, err := named.Names(image, "main", "")
		require.ErrorIs(t, err, ErrReference, image)
	}
	for _, name := range []string{".x", "-x", "a/b", "a+b", "a@b", "a b", "a:b", "..", "a..b", "x.tar", "é", strings.Repeat("x", 129), "a\n"} {
		_, err := Scheme{Name: name}.Names("x:t", "main", "")
		require.ErrorIs(t, err, ErrScheme, name)
	}
	_, err = Scheme{KeepTag: true}.Names("x"+sha, "main", "")
	require.ErrorIs(t, err, ErrReference)
	assert.ErrorContains(t, err, "or a name for the tarball")
}

func TestStripped(t *testing.T) {
	for image, want := range map[string]struct {
		part   string
		isHash bool
	}{
		ecr + ":pytorch-linux-jammy-rocm-n-py3-" + hash: {hash, true},
		"x:v1.2-14-g2f5ec0d":                            {"g2f5ec0d", true},
		"x:sha-2f5ec0d":                                 {"2f5ec0d", true},
		"x:a-" + strings.Repeat("0f", 32):               {strings.Repeat("0f", 32), true},
		"debian:bookworm-20240612":                      {"20240612", true},
		"x:a-2f5ec0" + sha:                              {"2f5ec0", false}, // six digits
		"x:a-2F5EC0D":                                   {"2F5EC0D", false},
		"x:a-" + strings.Repeat("0f", 32) + "0":         {strings.Repeat("0f", 32) + "0", false},
		"python:3.12-slim":                              {"slim", false},
		"python:3.12-alpine3.19":                        {"alpine3.19", false},
		"x:jdk-17":                                      {"17", false},
		"x:1.0-rc1":                                     {"rc1", false},
		"x:a-":                                          {"", false},
		"x:latest":                                      {"", false},
		"x" + sha:                                       {"", false},
		"":                                              {"", false},
	} {
		part, isHash := Scheme{}.Stripped(image)
		assert.Equal(t, want.part, part, image)
		assert.Equal(t, want.isHash, isHash, image)
		for _, s := range []Scheme{{KeepTag: true}, {Name: "x"}} {
			part, isHash := s.Stripped(image)
			assert.Empty(t, part, image)
			assert.False(t, isHash, image)
		}
	}
}

// With the repository in the name, different images have different names:
// whatever stands on which side of a separator.
func TestRepositoryNamesAreUnique(t *testing.T) {
	images := []string{
		"x.io/a/b:c", "x.io/a-b:c", "x.io/a_b:c", "x.io/a__b:c", "x.io/a.b:c", "x.io/a/b:c_d", "x.io/a:b_c", "x.io/a:b-c", "x.io/a-b-c:d", "x.io/a:b",
		"a/b:c", "a-b:c", "b:c", "localhost/b:c", "localhost:5000/b:c", "localhost:50/b:c", "localhost/5000/b:c", "x.io:5000/a:c", "x.io/5000/a:c", "[::1]:50/b:c", "[::1:50]/b:c",
		"x.io/a:linux", "x.io/a/linux:amd64", "x.io/a:b.c", "x.io/a:b_main", "x.io/a:main",
	}
	branches := []string{"main", "hotfix/1", "hotfix-1", "hotfix_1", "b/main", "b-main", "b_main", "c_main"}
	rules, err := ParseRules("main=main,*=*")
	require.NoError(t, err)
	seen := map[string]string{}
	for _, platform := range []string{"", "linux/amd64", "linux/arm64", "linux/arm64/v8"} {
		scheme := Scheme{KeepTag: true, Repository: true, Platform: platform != "", Rules: rules}
		for _, image := range images {
			for _, branch := range branches {
				names, err := scheme.Names(image, branch, platform)
				require.NoError(t, err)
				this := image + " " + branch + " " + platform
				assert.Empty(t, seen[names.Tarball], "%s is also the name of %s", names.Tarball, this)
				seen[names.Tarball] = this
			}
		}
	}
}

func TestSchemeRefuses(t *testing.T) {
	for _, text := range []string{"", "+", "Strip", "strip+", "nosuffix+nosuffix", "tag+strip", "strip+tag", "tag+tag", "platform+platform", "repository,platform"} {
		_, err := ParseScheme(text)
		require.ErrorIs(t, err, ErrScheme, text)
	}
	for platform, scheme := range map[string]Scheme{"": {Platform: true}, "linux": {Platform: true}, "linux/../x": {Platform: true}, "linux/arm64/v8/x": {Platform: true}, "linux/arm64/": {Platform: true}, "windows/amd64:10.0": {Platform: true}} {
		_, err := scheme.Names("x:t", "main", platform)
		require.ErrorIs(t, err, ErrScheme, platform)
	}
	_, err := Scheme{Repository: true, Rules: Rules{{Branch: "main", Suffix: "a_b"}}}.Names("x:t", "main", "")
	require.ErrorIs(t, err, ErrRules)
	_, err = Scheme{Repository: true}.Names("x.io/"+strings.Repeat("a", 100)+":"+strings.Repeat("t", 100), "main", "")
	require.ErrorIs(t, err, ErrReference)
	assert.ErrorContains(t, err, "more than 200")
	_, err = Scheme{KeepTag: true}.Names("x:a..b", "main", "")
	require.ErrorIs(t, err, ErrReference)
	_, err = Scheme{Repository: true}.Names("[::1]:5000/x:t", "main", "")
	require.NoError(t, err)
}

func TestSchemeAsFlag(t *testing.T) {
	scheme := Scheme{Name: "x", Rules: Rules{{Branch: "trunk", Suffix: "dev"}}}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Var(&scheme, "naming", "")
	require.NoError(t, flags.Parse([]string{"-naming", "repository"}))
	assert.Equal(t, Scheme{Name: "x", Repository: true, Rules: Rules{{Branch: "trunk", Suffix: "dev"}}}, scheme)
	require.ErrorContains(t, flags.Parse([]string{"-naming", "name"}), "want strip, tag")
}

func TestSuffixOfTheBranch(t *testing.T) {
	rules, err := ParseRules("main=main,hotfix/*=*,*=*")
	require.NoError(t, err)
	for branch, want := range map[string]string{
		"main":                "main",
		"hotfix/123":          "hotfix-123",
		"hotfix-123":          "hotfix--123",
		"hotfix_123":          "hotfix---123",
		"user/fix-login/v2.0": "user-fix--login-v2.0",
	} {
		got, err := Suffix(branch, rules)
		require.NoError(t, err, branch)
		assert.Equal(t, want, got, branch)
		require.NoError(t, CheckElement(got))
	}
	for _, branch := range []string{"a/-b", "a-/b", "a--b", "a//b", "a__b", "/a", "a/", "-a", ".a", "a..b", "a.", "a b", "a\nb", "a\x00b", "a\\b", "é", "a#1", "../../etc", strings.Repeat("a", 65), strings.Repeat("a-", 32) + "a"} {
		got, err := Suffix(branch, rules)
		require.ErrorIs(t, err, ErrBranch, "%q gives %q", branch, got)
		assert.ErrorContains(t, err, "a rule of its own")
		assert.Empty(t, got)
	}
}

// Different branches that a "*" covers have different suffixes, none with a "_".
func TestSuffixesOfBranchesAreUnique(t *testing.T) {
	rules := Rules{{Prefix: true, Suffix: "*"}}
	seen := map[string]string{}
	const alphabet = "a/-_."
	var visit func(branch string)
	visit = func(branch string) {
		if suffix, err := Suffix(branch, rules); err == nil {
			require.Empty(t, seen[suffix], "%q and %q", branch, seen[suffix])
			require.NotContains(t, suffix, "_")
			seen[suffix] = branch
		}
		for i := range len(alphabet) {
			if len(branch) < 6 {
				visit(branch + alphabet[i:i+1])
			}
		}
	}
	visit("")
	assert.Greater(t, len(seen), 100)
}

func FuzzScheme(f *testing.F) {
	f.Add("ghcr.io/a/b:c-1", "hotfix/1", true, true)
	f.Add("[::1]:5000/x:t", "a-b_c", false, false)
	f.Fuzz(func(t *testing.T, image, branch string, keep, platform bool) {
		names, err := Scheme{KeepTag: keep, Repository: true, Platform: platform, Rules: Rules{{Prefix: true, Suffix: "*"}}}.Names(image, branch, "linux/arm64")
		if err != nil {
			require.Zero(t, names)
			return
		}
		require.NoError(t, CheckElement(names.Tarball))
		require.LessOrEqual(t, len(names.Tarball), 200)
		// Taken apart again: the last "_" is the border of the suffix.
		i := strings.LastIndexByte(names.Tarball, '_')
		require.Equal(t, names.Group, names.Tarball[:i])
		require.Equal(t, names.Suffix+".tar", names.Tarball[i+1:])
	})
}
