package workflow_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts/artifactstest"
	"github.com/dockercache/dockercache/artifacts/workflow"
)

func outputsOf(nameAndValue ...string) []workflow.Output {
	var outputs []workflow.Output
	for i := 0; i < len(nameAndValue); i += 2 {
		outputs = append(outputs, workflow.Output{Name: nameAndValue[i], Value: nameAndValue[i+1]})
	}
	return outputs
}

// No value makes a second output, or breaks the file: the runner's own rules
// read it.
func TestWriteOutputs(t *testing.T) {
	for _, value := range []string{
		"ghcr.io/x/y:z", "", "a\nb=c", "x\nforged=1\n", "\nforged=1", "x<<EOF", "EOF\nforged=1", "%0Aforged=1", "a\r\nforged=1", "forged=1", "\n", "\n\n",
		"dockercache_\nforged=1", "<<", "=", "::set-output name=forged::1", "x\x00y", "\u2028forged=1",
	} {
		var b bytes.Buffer
		require.NoError(t, workflow.WriteOutputs(&b, outputsOf("first", value, "second", "2")))
		got, err := artifactstest.ParseOutputFile(b.String())
		require.NoError(t, err, "%q", value)
		assert.Equal(t, []artifactstest.Output{{Name: "first", Value: value}, {Name: "second", Value: "2"}}, got)
	}
}

func TestWriteOutputsRefuses(t *testing.T) {
	for _, name := range []string{"", "a=b", "a<<b", "a\nb", " a", "a b", "a\x00", "é", strings.Repeat("a", 129)} {
		var b bytes.Buffer
		err := workflow.WriteOutputs(&b, outputsOf("good", "1", name, "2"))
		require.ErrorIs(t, err, workflow.ErrOutput, "%q", name)
		assert.Empty(t, b.String(), "all or nothing")
	}
	require.ErrorIs(t, workflow.WriteOutputs(&bytes.Buffer{}, outputsOf("a", "1", "a", "2")), workflow.ErrOutput)
	for _, pair := range [][2]string{{"RUN-ID", "run-id"}, {"a", "A"}, {"x.Y_z", "X.y_Z"}} {
		var b bytes.Buffer
		err := workflow.WriteOutputs(&b, outputsOf(pair[0], "1", "between", "2", pair[1], "3"))
		require.ErrorIs(t, err, workflow.ErrOutput, "the runner keeps one of them")
		assert.ErrorContains(t, err, "case does not count")
		assert.Empty(t, b.String())
	}
	full := errors.New("full")
	require.ErrorIs(t, workflow.WriteOutputs(writer(func([]byte) (int, error) { return 0, full }), outputsOf("a", "1")), full)
}

type writer func([]byte) (int, error)

func (f writer) Write(p []byte) (int, error) { return f(p) }

// What stands in the file already stays, also if its last line has no end.
func TestAppendOutputs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output")
	for _, before := range []string{"", "x=1\n", "x=1"} {
		require.NoError(t, os.WriteFile(path, []byte(before), 0o644))
		require.NoError(t, workflow.AppendOutputs(path, outputsOf("jammy", "r")))
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		got, err := artifactstest.ParseOutputFile(string(content))
		require.NoError(t, err)
		want := []artifactstest.Output{{Name: "jammy", Value: "r"}}
		if before != "" {
			want = append([]artifactstest.Output{{Name: "x", Value: "1"}}, want...)
		}
		assert.Equal(t, want, got)
	}
	require.NoError(t, os.Remove(path))
	require.ErrorIs(t, workflow.AppendOutputs(path, outputsOf("a b", "r")), workflow.ErrOutput)
	assert.NoFileExists(t, path)
	require.NoError(t, workflow.AppendOutputs(path, outputsOf("a", "r")))
	require.Error(t, workflow.AppendOutputs(filepath.Dir(path), outputsOf("a", "r")))
}

func FuzzWriteOutputs(f *testing.F) {
	f.Add("name", "value")
	f.Add("a<<E", "x\nE\nb=c")
	f.Add("a", "b\n\nc=d\r\n")
	f.Fuzz(func(t *testing.T, name, value string) {
		var b bytes.Buffer
		if workflow.WriteOutputs(&b, outputsOf(name, value, "second", value)) != nil {
			require.Empty(t, b.String())
			return
		}
		got, err := artifactstest.ParseOutputFile(b.String())
		require.NoError(t, err)
		require.Equal(t, []artifactstest.Output{{Name: name, Value: value}, {Name: "second", Value: value}}, got)
	})
}
