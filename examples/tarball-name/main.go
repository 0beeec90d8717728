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

func run(_ context.Context, args []string, stdout, stderr io.Writer) int {
	rules := tagging.PyTorchRules()
	f := flag.NewFlagSet("tarball-name", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(f.Output(), "Usage: tarball-name [flags] IMAGE BRANCH\n\nPrints the names derived from an image and the branch it was built from.\n\n")
		f.PrintDefaults()
		fmt.Fprint(f.Output(), "\nExit codes: 0 printed, 1 there is no such name, 2 wrong usage.\n")
	}
	f.Var(&rules, "rules", "which branch gives which suffix: `BRANCH=SUFFIX`, or PREFIX*=SUFFIX, separated by commas")
	mirror := f.String("mirror", "", "also print the reference in this mirror `REPOSITORY`")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return command.OK
	case err != nil:
		return command.Usage
	case slices.ContainsFunc(f.Args(), func(s string) bool { return strings.HasPrefix(s, "-") }):
		fmt.Fprintln(stderr, "tarball-name: flags go before IMAGE and BRANCH")
		return command.Usage
	case f.NArg() != 2:
		fmt.Fprintf(stderr, "tarball-name: want IMAGE and BRANCH, got %d arguments\n", f.NArg())
		f.Usage()
		return command.Usage
	}

	if err := printNames(stdout, f.Arg(0), f.Arg(1), rules, *mirror); err != nil {
		fmt.Fprintf(stderr, "tarball-name: %v\n", err)
		return command.Failed
	}
	return command.OK
}

// printNames prints all names or none, as NAME=VALUE for a shell to read: no
// value can hold a space or a line's end.
func printNames(w io.Writer, image, branch string, rules tagging.Rules, mirror string) error {
	tarball, err := tagging.Tarball(image, branch, rules)
	if err != nil {
		return err
	}
	repoTag, err := tagging.RepoTag(image)
	if err != nil {
		return err
	}
	text := "tarball=" + tarball + "\nrepotag=" + repoTag + "\n"
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
