package tagging

import (
	"flag"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPyTorchRules(t *testing.T) {
	for branch, want := range map[string]string{
		"main":            "main",
		"release":         "release",
		"release/2.9":     "release",
		"release/":        "release",
		"release/2.9-rc1": "release",
	} {
		got, err := Suffix(branch, nil)
		require.NoError(t, err, branch)
		assert.Equal(t, want, got, branch)
	}
	for _, branch := range []string{"", "Main", "main ", "main2", "releases", "release-2.9", "foo/release/2.9", "refs/heads/main", "viable/strict"} {
		got, err := Suffix(branch, nil)
		require.ErrorIs(t, err, ErrBranch, branch)
		assert.Empty(t, got)
		assert.ErrorContains(t, err, `"`+branch+`"`)
	}
	_, err := Suffix("viable/strict", nil)
	assert.ErrorContains(t, err, "main=main,release=release,release/*=release", "the error names the rules")
}

func TestParseRules(t *testing.T) {
	rules, err := ParseRules("trunk=dev,stable/*=stable,a=b=c,*=other")
	require.NoError(t, err)
	assert.Equal(t, Rules{
		{Branch: "trunk", Suffix: "dev"},
		{Branch: "stable/", Prefix: true, Suffix: "stable"},
		{Branch: "a=b", Suffix: "c"},
		{Prefix: true, Suffix: "other"},
	}, rules)
	for branch, want := range map[string]string{"trunk": "dev", "stable/1": "stable", "a=b": "c", "anything": "other", "stable": "other"} {
		got, err := Suffix(branch, rules)
		require.NoError(t, err)
		assert.Equal(t, want, got, branch)
	}

	def, err := ParseRules(PyTorchRules().String())
	require.NoError(t, err)
	assert.Equal(t, PyTorchRules(), def)
}

func TestParseRulesRefuses(t *testing.T) {
	for text, reason := range map[string]string{
		"":                                      "want BRANCH=SUFFIX",
		"main":                                  "want BRANCH=SUFFIX",
		"main=main,":                            "want BRANCH=SUFFIX",
		"=main":                                 "names no branch",
		"main=":                                 "suffix",
		"main=../x":                             "suffix",
		"main=a..b":                             "suffix",
		"main=x.":                               "suffix",
		"main=.x":                               "suffix",
		"main=a/b":                              "suffix",
		"ma*in=x":                               `"*" may only end`,
		"a**=x":                                 `"*" may only end`,
		"main=x,main=y":                         "two rules",
		"main=" + strings.Repeat("x", 65):       "suffix",
		"release/*=release,release/*=candidate": "two rules",
	} {
		rules, err := ParseRules(text)
		require.ErrorIs(t, err, ErrRules, text)
		assert.ErrorContains(t, err, reason, text)
		assert.Nil(t, rules)
	}
}

func TestRulesAsFlag(t *testing.T) {
	rules := PyTorchRules()
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Var(&rules, "rules", "")
	require.NoError(t, flags.Parse([]string{"-rules", "trunk=dev"}))
	assert.Equal(t, Rules{{Branch: "trunk", Suffix: "dev"}}, rules)
	require.ErrorContains(t, flags.Parse([]string{"-rules", "trunk"}), "want BRANCH=SUFFIX")
}

// Rules are data: a program may make them without the parser, so a suffix that
// no file name should have is refused where it is used too.
func TestRuleMadeByHandIsChecked(t *testing.T) {
	bad := Rules{{Branch: "main", Suffix: "../../etc"}}
	suffix, err := Suffix("main", bad)
	require.ErrorIs(t, err, ErrRules)
	assert.Empty(t, suffix)
	_, err = Tarball("x:a-b", "main", bad)
	require.ErrorIs(t, err, ErrRules)
}

func FuzzParseRules(f *testing.F) {
	for _, seed := range []string{"", "main=main", "release/*=release", "a=b=c,*=x", "=,=", "**=x"} {
		f.Add(seed, "main")
	}
	f.Fuzz(func(t *testing.T, text, branch string) {
		rules, err := ParseRules(text)
		if err != nil {
			require.ErrorIs(t, err, ErrRules)
			return
		}
		require.Equal(t, text, rules.String())
		suffix, err := Suffix(branch, rules)
		if err != nil {
			require.ErrorIs(t, err, ErrBranch)
			return
		}
		require.NoError(t, checkElement("name_"+suffix+".tar"))
	})
}
