package main

import (
	"flag"
	"fmt"
	"io"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/internal/buildflags"
	"github.com/dockercache/dockercache/internal/command"
)

type options struct {
	buildflags.Flags
	dir           string
	json, verbose bool
	request       *artifacts.Request
}

const usage = `Usage: merge-artifacts [flags] [-dir DIR]

Downloads the artifacts of a finished build run, merges them into DIR, prints
the NAME=REFERENCE lines of their text files, and appends them to $GITHUB_OUTPUT
if that is set, with the run's run-id, run-attempt and branch. The run is the one of the event that started this workflow, or
that of -repo and -run-id. It is refused unless it succeeded, was started by an
allowed event, and is of the repository's own code. Nothing is written unless
everything is in order.

`

const usageExit = `
Environment: GITHUB_TOKEN or GH_TOKEN with the permission "actions: read"; and
what a runner sets: GITHUB_API_URL, GITHUB_EVENT_NAME, GITHUB_EVENT_PATH,
GITHUB_REPOSITORY, GITHUB_OUTPUT, GITHUB_ACTIONS.

Exit codes: 0 all is well, 1 it failed or was refused, 2 wrong usage,
130 interrupted.
`

// parseFlags reads the command line. On an error of usage it has said what is
// wrong; with -h it has printed the usage and the error is [flag.ErrHelp].
func parseFlags(args []string, getenv func(string) string, stdout, stderr io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("merge-artifacts", flag.ContinueOnError)
	f.StringVar(&o.dir, "dir", ".", "the `DIR`ectory to write into; it is created if it is missing")
	o.Register(f)
	f.BoolVar(&o.json, "json", false, "print one JSON object for each output")
	f.BoolVar(&o.verbose, "v", false, "log on standard error what is asked for")

	err := command.ParseFlags(f, args, stdout, usage, usageExit)
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("%q: there are only flags", f.Arg(0))
	}
	if err == nil {
		o.request, err = o.Request(getenv)
	}
	if err == nil {
		// Here they are printed and passed on. Who pulls them needs the list.
		o.request.Gate.AnyReference = len(o.Allow) == 0
	}
	if err != nil {
		command.SayUsage(stderr, "merge-artifacts", err)
		return nil, err
	}
	return o, nil
}
