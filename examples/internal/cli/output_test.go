package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a runner does not read must not hold the secrets that it is asked to hide.
func TestMasksAreNotForFiles(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	defer file.Close()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	assert.True(t, isFile(file))
	assert.False(t, isFile(w))
	assert.False(t, isFile(&bytes.Buffer{}))

	t.Setenv("GITHUB_ACTIONS", "true")
	for _, quiet := range []bool{false, true} {
		out := newOutput("program", file, file, options{progress: true, quiet: quiet})
		assert.Nil(t, out.Mask)
		out.Stop()
		out = newOutput("program", file, w, options{progress: true, quiet: quiet})
		assert.NotNil(t, out.Mask)
		out.Stop()
	}
	t.Setenv("GITHUB_ACTIONS", "")
	out := newOutput("program", w, w, options{})
	assert.Nil(t, out.Mask, "no runner reads it")
}

func TestMaskOnce(t *testing.T) {
	t.Setenv("GITHUB_ACTIONS", "true")
	var stderr bytes.Buffer
	out := newOutput("program", &bytes.Buffer{}, &stderr, options{})
	out.Mask("one")
	out.Mask("two")
	out.Mask("one")
	assert.Equal(t, "::add-mask::one\n::add-mask::two\n", stderr.String())
}

type record struct {
	Name string `json:"name"`
}

func TestPrint(t *testing.T) {
	for json, want := range map[bool][2]string{
		false: {"a text\n| ::error::x\na remark\n", ""},
		true:  {"{\"name\":\"\\u0023\\u0023[x\"}\n", "a remark\n"},
	} {
		var stdout, stderr bytes.Buffer
		out := newOutput("program", &stdout, &stderr, options{json: json})
		out.Print(record{"##[x"}, "a text\n")
		out.Print(nil, "::error::x")
		out.Print(nil, "")
		out.Remark("a remark")
		assert.Equal(t, want, [2]string{stdout.String(), stderr.String()})
		assert.Equal(t, OK, out.Code(t.Context()))
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("the disk is full") }

// A script that reads nothing must not take that for "none".
func TestCode(t *testing.T) {
	var stderr bytes.Buffer
	out := newOutput("program", broken{}, &stderr, options{})
	out.Print(nil, "x")
	out.Print(nil, "y")
	assert.Equal(t, "program: print the results: the disk is full\n", stderr.String())
	assert.Equal(t, Failed, out.Code(t.Context()))

	out = newOutput("program", &stderr, &stderr, options{})
	out.Report(errors.New("x"))
	assert.Equal(t, OK, out.Code(t.Context()))
	out.Fail(errors.New("x"))
	assert.Equal(t, Failed, out.Code(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Equal(t, Interrupted, out.Code(ctx))
}

// Annotations are for programs that ask for them, in Actions.
func TestAnnotations(t *testing.T) {
	for _, actions := range []string{"", "true"} {
		for _, annotate := range []bool{false, true} {
			t.Setenv("GITHUB_ACTIONS", actions)
			var stderr bytes.Buffer
			out := newOutput("program", &bytes.Buffer{}, &stderr, options{annotate: annotate, advice: func(error) string { return "do this" }})
			out.Warn("w")
			out.Fail(errors.New("e"))
			out.Notice("n")
			out.Group("g", []string{"::l"})
			want := "program: warning: w\nprogram: e\n  What to do: do this\ng\n| ::l\n"
			if actions != "" && annotate {
				want = "program: warning: w\n::warning title=program::w\nprogram: e\n  What to do: do this\n::error title=program::e%0A  What to do: do this\n" +
					"::notice title=program::n\n::group::g\n| ::l\n::endgroup::\n"
			}
			assert.Equal(t, want, stderr.String())
		}
	}
}
