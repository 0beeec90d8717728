package command

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dockercache/dockercache/artifacts/workflow"
)

// ParseFlags reads a command line. With -h it prints before, the flags, and after,
// and the error is [flag.ErrHelp]. A flag that is given and empty is an error: most
// often it is a variable that is not set.
func ParseFlags(f *flag.FlagSet, args []string, stdout io.Writer, before, after string) error {
	f.SetOutput(io.Discard)
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		f.SetOutput(stdout)
		fmt.Fprint(stdout, before)
		f.PrintDefaults()
		fmt.Fprint(stdout, after)
	}
	if err != nil {
		return err
	}
	f.Visit(func(g *flag.Flag) {
		if g.Value.String() == "" && err == nil {
			err = fmt.Errorf("-%s is empty: was a variable not set?", g.Name)
		}
	})
	return err
}

// SayUsage prints what is wrong with a command line, unless help was asked for.
func SayUsage(stderr io.Writer, program string, err error) {
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	Say(stderr, program, err)
	fmt.Fprintf(stderr, "Run \"%s -h\" for help.\n", program)
}

// Say prints an error. What it quotes may be foreign: nothing of it becomes a
// command to a CI runner.
func Say(stderr io.Writer, program string, err error) {
	fmt.Fprintf(stderr, "%s: %s\n", program, workflow.Plain(err.Error()))
}

// Dir returns the directory of tarballs that was given, or the default one of the
// workflow that this project replaces.
func Dir(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("-dir was not given, and its default cannot be made: %w", err)
	}
	return filepath.Join(home, "pytorch-data", "docker"), nil
}
