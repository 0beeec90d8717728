package artifacts

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func files(nameAndContent ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(nameAndContent); i += 2 {
		fsys[nameAndContent[i]] = &fstest.MapFile{Data: []byte(nameAndContent[i+1])}
	}
	return fsys
}

func TestReadOutputs(t *testing.T) {
	outputs, overridden, err := ReadOutputs(files(
		"b.txt", "jammy=ecr/ci:jammy-2\r\n\r\n",
		"a.txt", "noble=ecr/ci:noble-1\njammy=ecr/ci:jammy-1", // no last newline
		"ignored.log", "<<<",
		"sub/c.txt", "<<<",
	))
	require.NoError(t, err)
	assert.Equal(t, []Output{
		{"noble", "ecr/ci:noble-1", "a.txt", 1},
		{"jammy", "ecr/ci:jammy-2", "b.txt", 1},
	}, outputs)
	assert.Equal(t, []Output{{"jammy", "ecr/ci:jammy-1", "a.txt", 2}}, overridden)
}

func TestReadOutputsRefuses(t *testing.T) {
	for name, c := range map[string]struct{ content, says string }{
		"no equals sign":   {"a=b\nplain\n", `a.txt:2: "plain": want NAME=REFERENCE`},
		"empty reference":  {"jammy=\n", "did the build fail?"},
		"empty name":       {"=x\n", "the name may have"},
		"a runner's block": {"x<<E\nanything\nE\n", "want NAME=REFERENCE"},
		"a block with =":   {"x<<E=\n", "the name may have"},
		"space":            {"a=b c\n", "a space or control character"},
		"escape":           {"a=b\x1b[31m\n", "a space or control character"},
		"lone CR":          {"a=b\rc=d\n", "a space or control character"},
		"leading space":    {" a=b\n", "the name may have"},
		"path as a name":   {"../a=b\n", "the name may have"},
		"not text":         {"c=d\na=b\xff\n", `a.txt:2: "a=b\xff": it is not UTF-8 text`},
		"too large":        {strings.Repeat("\n", maxOutputFile+1), "more than 1048576"},
		"nothing":          {"\n\n", "no *.txt file with a line"},
		"case":             {"jammy=a:1\nRUN-ID=b:1\njammy=a:2\nrun-id=c:1\n", `a.txt:4: "run-id" and "RUN-ID" of a.txt:2 are one output where case does not count`},
		"too many":         {manyOutputs(maxOutputs + 1), "more than 1000"},
	} {
		outputs, _, err := ReadOutputs(files("a.txt", c.content))
		require.ErrorIs(t, err, ErrOutputs, name)
		assert.ErrorContains(t, err, c.says, name)
		assert.Empty(t, outputs, name)
	}
	_, _, err := ReadOutputs(files())
	require.ErrorIs(t, err, ErrOutputs)
	_, _, err = ReadOutputs(fstest.MapFS{"a.txt": {Mode: fs.ModeSymlink, Data: []byte("/etc/passwd")}})
	require.ErrorContains(t, err, "not a regular file")
}

func manyOutputs(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("n" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + strings.Repeat("y", i/50) + "=r\n")
	}
	return b.String()
}

func FuzzParseOutputs(f *testing.F) {
	f.Add([]byte("a=b\r\n\nc=d"))
	f.Add([]byte("x<<E\na=b\nE\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		outputs, err := parseOutputs("a.txt", content)
		if err != nil {
			return
		}
		for _, o := range outputs {
			require.Regexp(t, `^[A-Za-z0-9_.-]+=\S+$`, o.Name+"="+o.Reference)
			require.Positive(t, o.Line)
		}
	})
}
