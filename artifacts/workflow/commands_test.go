package workflow_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts/artifactstest"
	"github.com/dockercache/dockercache/artifacts/workflow"
)

// commandsIn is what a runner finds in a text: it reads lines that end with
// "\n", "\r\n" or "\r".
func commandsIn(text string) []artifactstest.Command {
	var found []artifactstest.Command
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "\r", "\n"), "\n") {
		if c, ok := artifactstest.ParseCommand(line); ok {
			found = append(found, c)
		}
	}
	return found
}

// hostile are texts that try to be commands.
var hostile = []string{
	"::add-mask::x", "  ::error::x", "\t::stop-commands::x", "\u00a0\u2003::error::x", "\r::error::x", "a\n::error::x", "a\r::error::x", "a\r\n::error::x",
	"::error file=a,line=1::x", "##[error]x", "text ##[add-mask]x", "##[group]x\n##[error]y", "##[[error]]", "###[error]x", "##\u200b[error]x", "#\u00ad#[error]x",
	"\u200b::error::x", ":\u200b:error::x", "\ufe0f::error::x", "\u034f::error::x", "\x00::error::x", "\x1b::error::x", "#\u034f#\ufe0f[error]x", "\u2028::error::x", "\x85::error::x", "\v::error::x",
	"::unknown::##[add-mask]x", "\u115f::error::x",
}

func TestPlain(t *testing.T) {
	for _, text := range hostile {
		require.NotEmpty(t, text)
		assert.Empty(t, commandsIn(workflow.Plain(text)), "%q", text)
	}
	for _, text := range []string{"", "jammy=ghcr.io/x/y:z", "a::b", "C++ std::x", "# [x]", "two\nlines\n", "é: ü", "\tindented", "[#1]"} {
		assert.Equal(t, text, workflow.Plain(text))
	}
	assert.Equal(t, "| ::error::x\n| \t:: ## [", workflow.Plain("::error::x\r\n\t:: ##["))
	assert.Equal(t, "a\uFFFDb\uFFFD", workflow.Plain("a\x1bb\xff"))
}

// The same for a log, and for JSON without a change of what it means.
func TestPlainWriterAndJSON(t *testing.T) {
	for _, text := range hostile {
		var b bytes.Buffer
		n, err := workflow.PlainWriter(&b).Write([]byte(text + "\n"))
		require.NoError(t, err)
		assert.Equal(t, len(text)+1, n)
		assert.Equal(t, workflow.Plain(text+"\n"), b.String())

		raw, err := json.Marshal(map[string]string{"name": text})
		require.NoError(t, err)
		plain := workflow.PlainJSON(raw)
		assert.Empty(t, commandsIn(string(plain)), "%q", text)
		assert.JSONEq(t, string(raw), string(plain))
	}
	full := errors.New("full")
	_, err := workflow.PlainWriter(writer(func([]byte) (int, error) { return 0, full })).Write([]byte("x\n"))
	require.ErrorIs(t, err, full)
}

// The texts that are used above are commands to the parser that clears Plain.
func TestParserFindsCommands(t *testing.T) {
	found := 0
	for _, text := range hostile {
		if len(commandsIn(text)) > 0 {
			found++
		}
	}
	assert.GreaterOrEqual(t, found, 22, "of %d", len(hostile))
	c, ok := artifactstest.ParseCommand(" ::error file=a%2Cb,line=5::x%0Ay%25")
	require.True(t, ok)
	assert.Equal(t, artifactstest.Command{Name: "error", Properties: map[string]string{"file": "a,b", "line": "5"}, Data: "x\ny%"}, c)
	_, ok = artifactstest.ParseCommand("::no-such-command::x")
	assert.False(t, ok)
}

func TestCommands(t *testing.T) {
	var b bytes.Buffer
	c := workflow.NewCommands(&b)
	require.NoError(t, c.Group("build: 100 %"))
	require.NoError(t, c.EndGroup())
	require.NoError(t, c.Notice(workflow.Annotation{}, "a\nb"))
	require.NoError(t, c.Warning(workflow.Annotation{File: "a,b:c.txt"}, "x"))
	require.NoError(t, c.Error(workflow.Annotation{Title: "T", File: "f", Line: 3}, "50 %"))
	assert.Equal(t, "::group::build: 100 %25\n::endgroup::\n::notice::a%0Ab\n::warning file=a%2Cb%3Ac.txt::x\n::error title=T,file=f,line=3::50 %25\n", b.String())
	assert.Equal(t, []artifactstest.Command{
		{Name: "group", Properties: map[string]string{}, Data: "build: 100 %"},
		{Name: "endgroup", Properties: map[string]string{}},
		{Name: "notice", Properties: map[string]string{}, Data: "a\nb"},
		{Name: "warning", Properties: map[string]string{"file": "a,b:c.txt"}, Data: "x"},
		{Name: "error", Properties: map[string]string{"title": "T", "file": "f", "line": "3"}, Data: "50 %"},
	}, commandsIn(b.String()))
}

func TestMask(t *testing.T) {
	for secret, want := range map[string]string{
		"ghs_secret":          "::add-mask::ghs_secret\n",
		"two\nlines 100%":     "::add-mask::two%0Alines 100%25\n",
		"":                    "",
		" \n\t":               "",
		"308535385114":        "", // it is in every reference of ECR
		" 308535385114\n":     "",
		"x\n308535385114\ny":  "",
		"x\r308535385114":     "",
		"3085353851140":       "::add-mask::3085353851140\n",
		"308535385114.dkr.ec": "::add-mask::308535385114.dkr.ec\n",
	} {
		var b bytes.Buffer
		done, err := workflow.NewCommands(&b).Mask(secret)
		require.NoError(t, err)
		assert.Equal(t, want, b.String())
		assert.Equal(t, want != "", done)
	}
}

// Outside of Actions there is no runner to write to.
func TestNoCommands(t *testing.T) {
	for _, c := range []*workflow.Commands{nil, {}, workflow.NewCommands(nil)} {
		require.NoError(t, c.Warning(workflow.Annotation{Title: "t"}, "text"))
		require.NoError(t, c.EndGroup())
		masked, err := c.Mask("secret")
		require.NoError(t, err)
		assert.False(t, masked)
	}
}

// Whatever is passed: one command for each call, the one that was meant.
func FuzzCommands(f *testing.F) {
	for _, text := range hostile {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		require.Empty(t, commandsIn(workflow.Plain(text)))
		require.Empty(t, commandsIn(workflow.Plain(workflow.Plain(text))))
		var b bytes.Buffer
		c := workflow.NewCommands(&b)
		require.NoError(t, c.Error(workflow.Annotation{Title: text, File: text, Line: 1}, text))
		require.NoError(t, c.Group(text))
		found := commandsIn(b.String())
		require.Len(t, found, 2)
		require.Equal(t, "error", found[0].Name)
		require.Equal(t, "1", found[0].Properties["line"])
		require.Subset(t, []string{"title", "file", "line"}, keys(found[0].Properties))
		require.Equal(t, "group", found[1].Name)
		require.Empty(t, found[1].Properties)
	})
}

func keys(m map[string]string) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	return all
}
