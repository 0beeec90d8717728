// Merge-artifacts downloads what a build run uploaded, merges it into one
// directory, and passes the images that it names on as outputs of a job.
//
//	merge-artifacts [flags] [-dir DIR]
//
// In a workflow started by workflow_run or workflow_dispatch it finds the run in
// the event; elsewhere -repo and -run-id name it. See -h for the flags and the
// exit codes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/artifacts/workflow"
	"github.com/dockercache/dockercache/internal/buildflags"
	"github.com/dockercache/dockercache/internal/command"
)

func main() { command.Main(run) }

const before = `Usage: merge-artifacts [flags] [-dir DIR]

Downloads the artifacts of a finished build run, merges them into DIR, prints
the NAME=REFERENCE lines of their text files, and appends them to $GITHUB_OUTPUT
if that is set, with the run's run-id, run-attempt and branch. The run is the one
of the event that started this workflow, or that of -repo and -run-id. It is
refused unless it succeeded, was started by an allowed event, and is of the
repository's own code. If anything is wrong, nothing is written.

`

const after = `
Environment: GITHUB_TOKEN or GH_TOKEN with the permission "actions: read"; and
what a runner sets: GITHUB_API_URL, GITHUB_EVENT_NAME, GITHUB_EVENT_PATH,
GITHUB_REPOSITORY, GITHUB_OUTPUT, GITHUB_ACTIONS.

Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 130 interrupted.
`

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("merge-artifacts", flag.ContinueOnError)
	var build buildflags.Flags
	dir := f.String("dir", ".", "the `DIR`ectory to write into; it is created if it does not exist")
	build.Register(f)
	asJSON := f.Bool("json", false, "print one JSON object for each output")
	verbose := f.Bool("v", false, "log requests on standard error")
	err := command.ParseFlags(f, args, stdout, before, after)
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("%q: there are only flags", f.Arg(0))
	}
	var request *artifacts.Request
	if err == nil {
		request, err = build.Request(os.Getenv)
	}
	if err != nil {
		buildflags.SayUsage(stderr, "merge-artifacts", err)
		return exitCode(err, command.Usage)
	}
	// Here references are only passed on. A program that pulls them needs the list.
	request.Policy.AnyReference = len(build.Allow) == 0

	m := &merger{stdout: stdout, stderr: stderr, json: *asJSON, level: slog.LevelWarn}
	if *verbose {
		m.level = slog.LevelDebug
	}
	if os.Getenv("GITHUB_ACTIONS") == "true" {
		m.commands = workflow.NewCommands(stderr)
	}
	if err = m.merge(ctx, request, *dir); ctx.Err() != nil {
		return command.Interrupted
	}
	if err != nil {
		command.Say(stderr, "merge-artifacts", err)
		_ = m.commands.Error(title, err.Error())
	}
	return exitCode(err, command.Failed)
}

func exitCode(err error, otherwise int) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return command.OK
	case errors.Is(err, artifacts.ErrEvent): // the event is at fault, not the command line
		return command.Failed
	case errors.Is(err, artifacts.ErrRequest): // such as a malformed -repo
		return command.Usage
	}
	return otherwise
}

var title = workflow.Annotation{Title: "merge-artifacts"}

// A merger writes text that is not trusted to a runner, which reads all of it: only
// as [workflow.Plain] makes it.
type merger struct {
	stdout, stderr io.Writer
	json           bool
	level          slog.Level
	commands       *workflow.Commands // nil outside of Actions
}

// merge writes the files first: an output must not name a file that is not there.
func (m *merger) merge(ctx context.Context, request *artifacts.Request, dir string) error {
	logger := slog.New(slog.NewTextHandler(workflow.PlainWriter(m.stderr), &slog.HandlerOptions{Level: m.level}))
	client, err := buildflags.Client(os.Getenv, logger)
	if err != nil {
		return err
	}
	build, err := client.Fetch(ctx, request)
	if err != nil {
		return err
	}
	for _, f := range build.Files.Files {
		for _, old := range f.Overridden {
			m.warn(fmt.Sprintf("%s of artifact %s is overridden by artifact %s", f.Path, old.Name, f.From.Name))
		}
	}
	for _, old := range build.Overridden {
		m.warn(fmt.Sprintf("%s:%d: output %s is overridden by a later file", old.File, old.Line, old.Name))
	}
	outputs, err := outputsOf(build)
	if err != nil {
		return err
	}
	if err := build.Files.WriteDir(dir); err != nil {
		return err
	}
	if file := os.Getenv("GITHUB_OUTPUT"); file != "" {
		if err := workflow.AppendOutputs(file, outputs); err != nil {
			return fmt.Errorf("write the outputs: %w", err)
		}
	}
	return m.print(build)
}

func (m *merger) warn(text string) {
	command.Say(m.stderr, "merge-artifacts", errors.New("warning: "+text))
	_ = m.commands.Warning(title, text)
}
