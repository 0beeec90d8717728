package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/internal/buildflags"
	"github.com/dockercache/dockercache/internal/command"
)

func main() { command.Main(run) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseFlags(args, os.Getenv, stdout, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return command.OK
	case errors.Is(err, artifacts.ErrEvent):
		return command.Failed // the event is at fault, not the command line
	case err != nil:
		return command.Usage
	}
	p := &printer{stdout: stdout, stderr: stderr, json: o.json}
	if os.Getenv("GITHUB_ACTIONS") == "true" {
		p.commands = artifacts.NewCommands(stderr)
	}
	err = merge(ctx, o, p)
	switch {
	case ctx.Err() != nil:
		return command.Interrupted
	case errors.Is(err, artifacts.ErrRequest): // such as a -repo that is none
		p.failed(err)
		return command.Usage
	case err != nil:
		p.failed(err)
		return command.Failed
	}
	return command.OK
}

// merge does all of it. The files come first: an output must not name what is
// not there.
func merge(ctx context.Context, o *options, p *printer) error {
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(artifacts.PlainWriter(p.stderr), &slog.HandlerOptions{Level: level}))
	client, err := buildflags.Client(os.Getenv, logger)
	if err != nil {
		return err
	}
	build, err := client.Fetch(ctx, o.request)
	if err != nil {
		return err
	}
	for _, f := range build.Files.Files {
		for _, over := range f.Over {
			p.warn(fmt.Sprintf("%s of artifact %s is overridden by artifact %s", f.Path, over.Name, f.From.Name))
		}
	}
	for _, old := range build.Overridden {
		p.warn(fmt.Sprintf("%s:%d: output %s is overridden by a later file", old.File, old.Line, old.Name))
	}
	outputs, err := withRun(build)
	if err != nil {
		return err
	}
	if err := build.Files.WriteDir(o.dir); err != nil {
		return err
	}
	if file := os.Getenv("GITHUB_OUTPUT"); file != "" {
		if err := artifacts.AppendOutputs(file, outputs); err != nil {
			return fmt.Errorf("write the outputs: %w", err)
		}
	}
	return p.outputs(build)
}

// withRun adds outputs that say which run it was: whoever stocks the images later
// must know, so that an older run does not replace a newer one's.
func withRun(build *artifacts.Build) ([]artifacts.Output, error) {
	outputs := slices.Clone(build.Outputs)
	for _, o := range []artifacts.Output{
		{Name: "run-id", Reference: strconv.FormatInt(build.Run.ID, 10)},
		{Name: "run-attempt", Reference: strconv.FormatInt(build.Run.Attempt, 10)},
		{Name: "branch", Reference: build.Run.HeadBranch},
	} {
		if i := slices.IndexFunc(outputs, func(image artifacts.Output) bool { return image.Name == o.Name }); i >= 0 {
			return nil, fmt.Errorf("%s:%d: the build has an output called %q, which is kept for the run's own: rename the image", outputs[i].File, outputs[i].Line, o.Name)
		}
		outputs = append(outputs, o)
	}
	return outputs, nil
}
