// Tarball-name prints the names that this project derives from an image's
// reference and the branch that it was built from.
//
//	tarball-name [-rules RULES] [-mirror REPOSITORY] IMAGE BRANCH
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dockercache/dockercache/internal/command"
	"github.com/dockercache/dockercache/tagging"
)

func main() { command.Main(run) }

const before = `Usage: tarball-name [flags] IMAGE BRANCH

Prints the names derived from an image and the branch it was built from.

`

const after = `
Exit codes: 0 printed, 1 there is no such name, 2 wrong usage.
`

func run(_ context.Context, args []string, stdout, stderr io.Writer) int {
	scheme := tagging.Scheme{Rules: tagging.PyTorchRules()}
	f := flag.NewFlagSet("tarball-name", flag.ContinueOnError)
	f.Var(&scheme.Rules, "rules", "which branch gives which suffix: `BRANCH=SUFFIX`, or PREFIX*=SUFFIX, separated by commas; the SUFFIX * is made of the branch")
	mirror := f.String("mirror", "", "also print the reference in this mirror `REPOSITORY`")
	err := command.ParseFlags(f, args, stdout, before, after)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return command.OK
	case err != nil:
	case slices.ContainsFunc(f.Args(), func(s string) bool { return strings.HasPrefix(s, "-") }):
		err = errors.New("flags go before IMAGE and BRANCH")
	case f.NArg() != 2:
		err = fmt.Errorf("want IMAGE and BRANCH, got %d arguments", f.NArg())
	}
	if err != nil {
		command.SayUsage(stderr, "tarball-name", err)
		return command.Usage
	}
	if err := printNames(stdout, scheme, f.Arg(0), f.Arg(1), *mirror); err != nil {
		command.Say(stderr, "tarball-name", err)
		return command.Failed
	}
	return command.OK
}

// printNames prints all names or none, as NAME=VALUE for a shell to read: no value
// can contain a space or a line's end.
func printNames(w io.Writer, scheme tagging.Scheme, image, branch, mirror string) error {
	names, err := scheme.Names(image, branch, "")
	if err != nil {
		return err
	}
	text := "tarball=" + names.Tarball + "\nrepotag=" + names.RepoTag + "\n"
	if mirror != "" {
		ref, err := tagging.Mirror(image, mirror)
		if err != nil {
			return err
		}
		text += "mirror=" + ref + "\n"
	}
	_, err = io.WriteString(w, text)
	return err
}
