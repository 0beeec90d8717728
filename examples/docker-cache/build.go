package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/internal/buildflags"
	"github.com/dockercache/dockercache/internal/command"
	"github.com/dockercache/dockercache/tagging"
)

// checkBuild finds what is wrong with the flags about a build run. Without IMAGE
// it makes the request for one.
func (o *options) checkBuild(getenv func(string) string) error {
	if len(o.images) > 0 {
		for flag, given := range map[string]bool{
			"repo": o.build.Repository != "", "names": len(o.build.Names) > 0, "owner": o.build.Owner != "",
			"branches": len(o.build.Branches) > 0, "events": len(o.build.Events) > 0, "workflows": len(o.build.Workflows) > 0, "last-wins": o.build.LastWins,
			"artifacts": o.build.Pattern != artifacts.PyTorchPattern,
		} {
			if given {
				return fmt.Errorf("-%s is about the build that names the images: leave it or the IMAGE arguments out", flag)
			}
		}
		gate := artifacts.Policy{Allow: o.build.Allow}
		if err := gate.Validate(); err != nil {
			return fmt.Errorf("-allow: %w", err)
		}
		return o.findRun(getenv)
	}
	if o.run.Attempt != 0 {
		return errors.New("-run-attempt is for IMAGE arguments: of a build run it is asked for")
	}
	request, err := o.build.Request(getenv)
	switch {
	case errors.Is(err, artifacts.ErrEvent):
		return err
	case err != nil:
		return fmt.Errorf("no IMAGE was given, and for the images of a build run: %w", err)
	case len(o.build.Allow) == 0:
		return errors.New("-allow is required without IMAGE: in which repositories may the images be that the build names?")
	}
	request.Branch = o.branch
	o.request = request
	return nil
}

// findRun finds out which build run the IMAGE arguments come from: that of -run-id,
// or of the event workflow_run. Without either there is no order among them.
func (o *options) findRun(getenv func(string) string) error {
	switch {
	case o.build.RunID < 0 || o.run.Attempt < 0:
		return errors.New("-run-id and -run-attempt: want the numbers of the build run")
	case o.run.Attempt != 0 && o.build.RunID == 0:
		return errors.New("-run-attempt needs -run-id")
	}
	if o.run.ID = o.build.RunID; o.run.ID != 0 || getenv("GITHUB_EVENT_NAME") != "workflow_run" {
		return nil
	}
	event, err := artifacts.EnvironmentEvent(getenv)
	if err == nil && event.Run != nil {
		o.run = cache.Run{ID: event.Run.ID, Attempt: event.Run.Attempt}
	}
	return err
}

// fetchBuild finds out from a build run which images are to be stocked. It
// returns the exit code.
func fetchBuild(ctx context.Context, o *options, report *report, log *slog.Logger) int {
	err := o.fromBuild(ctx, report, log)
	switch {
	case err == nil:
		return command.OK
	case ctx.Err() != nil:
		return command.Interrupted
	}
	report.failed(err)
	if errors.Is(err, artifacts.ErrRequest) { // such as a -repo that is none
		return command.Usage
	}
	return command.Failed
}

func (o *options) fromBuild(ctx context.Context, report *report, log *slog.Logger) error {
	client, err := buildflags.Client(os.Getenv, log)
	if err != nil {
		return err
	}
	build, err := client.Fetch(ctx, o.request)
	if err != nil {
		return err
	}
	if _, err := tagging.Suffix(build.Run.HeadBranch, o.rules); err != nil {
		return fmt.Errorf("run %d of %s: %w", build.Run.ID, build.Run.Repository, err)
	}
	for _, f := range build.Files.Files {
		for _, over := range f.Overridden {
			report.warn(fmt.Sprintf("%s of artifact %s is overridden by artifact %s", f.Path, over.Name, f.From.Name))
		}
	}
	for _, old := range build.Overridden {
		report.warn(fmt.Sprintf("%s:%d: output %s is overridden by a later file", old.File, old.Line, old.Name))
	}
	o.branch = build.Run.HeadBranch
	o.run = cache.Run{ID: build.Run.ID, Attempt: build.Run.Attempt}
	report.group(fmt.Sprintf("Build run %d of %s, branch %s", build.Run.ID, build.Run.Repository, build.Run.HeadBranch))
	for _, output := range build.Outputs {
		report.tell(output.Name + "=" + output.Reference)
		if !slices.Contains(o.images, output.Reference) {
			o.images = append(o.images, output.Reference)
		}
	}
	report.endGroup()
	return nil
}
