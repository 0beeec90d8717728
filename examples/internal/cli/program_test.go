package cli

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// example is a program for tests.
type example struct {
	dir  string
	args []string
	err  error
}

func (e *example) Check(args []string) error { e.args = args; return e.err }

func (e *example) Run(ctx context.Context, out *Output) int {
	out.Print(nil, e.dir)
	return out.Code(ctx)
}

func exampleProgram(e *example) Program {
	return Program{Name: "program", Usage: "before\n", Notes: "after\n", Setup: func(f *FlagSet) Runner {
		f.StringVar(&e.dir, "dir", "", "the `DIR`")
		return e
	}}
}

// run runs a program and returns its exit code and what it printed.
func run(t *testing.T, p *Program, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = p.Run(t.Context(), args, &out, &err)
	return code, out.String(), err.String()
}

const help = "before\n\nFlags:\n  -dir DIR\n    \tthe DIR\n  -version\n    \tprint the version\n\nafter\n"

func TestProgram(t *testing.T) {
	e := &example{}
	p := exampleProgram(e)
	code, stdout, stderr := run(t, &p, "-dir", "x", "y")
	assert.Equal(t, OK, code)
	assert.Equal(t, "x\n", stdout)
	assert.Empty(t, stderr)
	assert.Equal(t, []string{"y"}, e.args)
	for _, args := range [][]string{{"-h"}, {"--help"}, {"help"}} {
		code, stdout, stderr = run(t, &p, args...)
		assert.Equal(t, OK, code, args)
		assert.Equal(t, help, stdout, args)
		assert.Empty(t, stderr)
	}
	code, stdout, stderr = run(t, &p, "-version")
	assert.Equal(t, OK, code)
	assert.Regexp(t, `^program \S*.*, `+runtime.Version()+`\n$`, stdout)
	assert.Empty(t, stderr)
}

// A flag is in the help of its section, with its own default, whatever came before -h.
func TestSections(t *testing.T) {
	var set *FlagSet
	p := Program{Name: "program", Usage: "before\n", Notes: "after\n", Setup: func(f *FlagSet) Runner {
		set = f
		f.JSONFlag("as JSON")
		f.Section("What")
		f.String("what", "all", "`W`")
		f.Int("a", 0, "`N`")
		f.Section("How")
		f.Bool("how", false, "so")
		return &example{}
	}}
	_, stdout, _ := run(t, &p, "-what", "one", "-json", "-h")
	assert.Equal(t, "before\n\nFlags:\n  -json\n    \tas JSON\n  -version\n    \tprint the version\n"+
		"\nWhat:\n  -a N\n    \tN\n  -what W\n    \tW (default \"all\")\n\nHow:\n  -how\n    \tso\n\nafter\n", stdout)
	run(t, &p, "-version", "-what", "one", "-a", "1")
	assert.Equal(t, "-a", set.GivenIn("What"))
	assert.Empty(t, set.GivenIn("How"))
}

func TestWrongUsage(t *testing.T) {
	for want, args := range map[string][]string{
		"-dir is empty: was a variable not set?": {"-dir", ""},
		"flag provided but not defined: -other":  {"-other"},
		"no IMAGE":                               {},
		"a\n| ::stop-commands::x":                {"forged"},
	} {
		e := &example{err: errors.New("no IMAGE")}
		if len(args) == 1 && args[0] == "forged" {
			e.err = errors.New("a\n::stop-commands::x")
		}
		p := exampleProgram(e)
		code, stdout, stderr := run(t, &p, args...)
		assert.Equal(t, Usage, code)
		assert.Empty(t, stdout)
		assert.Equal(t, "program: "+want+"\nRun \"program -h\" for help.\n", stderr)
	}
	p := exampleProgram(&example{err: Failure(errors.New("no event"))})
	code, _, stderr := run(t, &p)
	assert.Equal(t, Failed, code, "the command line is not at fault")
	assert.Equal(t, "program: no event\n", stderr)
}

func TestCommands(t *testing.T) {
	e := &example{}
	one, two := exampleProgram(e), exampleProgram(e)
	one.Name, two.Name = "program one", "program two"
	p := Program{Name: "program", Usage: "all\n", Commands: []Program{one, two}}
	code, stdout, _ := run(t, &p, "two", "-dir", "x", "y")
	assert.Equal(t, OK, code)
	assert.Equal(t, "x\n", stdout)
	for _, args := range [][]string{{"one", "-h"}, {"help", "one"}} {
		_, stdout, _ = run(t, &p, args...)
		assert.Equal(t, help, stdout)
	}
	for _, args := range [][]string{{"-h"}, {"help"}} {
		_, stdout, _ = run(t, &p, args...)
		assert.Contains(t, stdout, "all\n")
	}
	_, stdout, _ = run(t, &p, "-version")
	assert.Regexp(t, "^program ", stdout)
	for want, args := range map[string][]string{
		"no COMMAND was given":                               {},
		`"three" is no COMMAND: want one of one, two`:        {"three"},
		`"-dir" comes before the COMMAND: flags go after it`: {"-dir", "x", "one"},
	} {
		code, _, stderr := run(t, &p, args...)
		assert.Equal(t, Usage, code)
		assert.Equal(t, "program: "+want+"\nRun \"program -h\" for help.\n", stderr)
	}
	code, _, stderr := run(t, &p, "one", "-dir", "")
	assert.Equal(t, Usage, code)
	assert.Contains(t, stderr, "program: -dir is empty")
	assert.Contains(t, stderr, `Run "program one -h" for help.`)
}

func TestArguments(t *testing.T) {
	require.NoError(t, Images([]string{"a", "b"}))
	require.EqualError(t, Images(nil), "no IMAGE was given")
	require.EqualError(t, Images([]string{"a", "-b"}), `"-b" comes after an IMAGE: flags go first`)
	require.NoError(t, FlagsOnly(nil))
	require.EqualError(t, FlagsOnly([]string{"a"}), `"a": there are only flags`)
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
