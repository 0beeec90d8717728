package command

import (
	"bytes"
	"errors"
	"flag"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseFlags(t *testing.T) {
	var value string
	parse := func(args ...string) (string, error) {
		var stdout bytes.Buffer
		f := flag.NewFlagSet("program", flag.ContinueOnError)
		f.StringVar(&value, "dir", "", "the `DIR`")
		err := ParseFlags(f, args, &stdout, "before\n", "after\n")
		return stdout.String(), err
	}
	printed, err := parse("-dir", "x")
	require.NoError(t, err)
	assert.Empty(t, printed)
	assert.Equal(t, "x", value)
	printed, err = parse("-h")
	require.ErrorIs(t, err, flag.ErrHelp)
	assert.Equal(t, "before\n  -dir DIR\n    \tthe DIR\nafter\n", printed)
	printed, err = parse("-dir", "")
	require.ErrorContains(t, err, "-dir is empty")
	assert.Empty(t, printed)
	printed, err = parse("-other")
	require.ErrorContains(t, err, "-other")
	assert.Empty(t, printed)
}

func TestSayUsage(t *testing.T) {
	for err, want := range map[error]string{
		flag.ErrHelp:                        "",
		errors.New("no IMAGE"):              "program: no IMAGE\nRun \"program -h\" for help.\n",
		errors.New("a\n::stop-commands::x"): "program: a\n| ::stop-commands::x\nRun \"program -h\" for help.\n",
	} {
		var stderr bytes.Buffer
		SayUsage(&stderr, "program", err)
		assert.Equal(t, want, stderr.String())
	}
}

func TestDir(t *testing.T) {
	dir, err := Dir("given")
	require.NoError(t, err)
	assert.Equal(t, "given", dir)
	t.Setenv("HOME", "/home/runner")
	dir, err = Dir("")
	require.NoError(t, err)
	assert.Equal(t, "/home/runner/pytorch-data/docker", dir)
	t.Setenv("HOME", "")
	_, err = Dir("")
	require.ErrorContains(t, err, "-dir was not given")
}
