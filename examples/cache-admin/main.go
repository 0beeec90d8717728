package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/dockercache/dockercache/artifacts/workflow"
	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/internal/command"
)

func main() { command.Main(run) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseFlags(args, stdout, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return command.OK
	case err != nil:
		return command.Usage
	}
	out := &output{stdout: stdout, stderr: workflow.PlainWriter(stderr), raw: stderr, json: o.json}
	if o.command == "info" { // needs no directory
		info(o, out)
		return out.code(ctx)
	}
	dir, err := cache.OpenDir(o.dir, nil)
	if err != nil {
		out.fail(err)
		return out.code(ctx)
	}
	switch o.command {
	case "list":
		listTarballs(ctx, dir, out)
	case "verify":
		verify(ctx, dir, o, out)
	case "prune":
		prune(ctx, dir, o, out)
	}
	return out.code(ctx)
}

// output prints what happens, and remembers what went wrong.
type output struct {
	stdout, stderr io.Writer
	raw            io.Writer // standard error, for commands to a runner
	json           bool
	failed, unsaid bool
}

// fail says what went wrong, and what a person can do about it.
func (o *output) fail(err error) {
	o.failed = true
	fmt.Fprintf(o.stderr, "cache-admin: %v%s\n", err, advice(err))
}

// Write prints to standard output, and remembers when it cannot: a script that
// reads nothing must not take that for "none". Names are foreign text: none of it
// is a command to a CI system's runner.
func (o *output) Write(p []byte) (int, error) {
	safe := []byte(workflow.Plain(string(p)))
	if o.json {
		safe = workflow.PlainJSON(p)
	}
	_, err := o.stdout.Write(safe)
	n := len(p)
	if err != nil && !o.unsaid {
		o.unsaid = true
		fmt.Fprintf(o.stderr, "cache-admin: print the results: %v\n", err)
	}
	return n, err
}

func (o *output) code(ctx context.Context) int {
	switch {
	case ctx.Err() != nil:
		return command.Interrupted
	case o.failed || o.unsaid:
		return command.Failed
	}
	return command.OK
}
