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
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/artifacts/workflow"
	"github.com/dockercache/dockercache/examples/internal/buildflags"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/report"
)

var program = cli.Program{
	Name: "merge-artifacts",
	Usage: `Usage: merge-artifacts [flags] [-dir DIR]

Downloads the artifacts of a finished build run, merges them into DIR, prints
the NAME=REFERENCE lines of their text files, and appends them to $GITHUB_OUTPUT
if that is set, with the run's run-id, run-attempt and branch. The run is the one
of the event that started this workflow, or that of -repo and -run-id. It is
refused unless it succeeded, was started by an allowed event, and is of the
repository's own code. If anything is wrong, nothing is written.
`,
	Notes: `Environment: GITHUB_TOKEN or GH_TOKEN with the permission "actions: read"; and
what a runner sets: GITHUB_API_URL, GITHUB_EVENT_NAME, GITHUB_EVENT_PATH,
GITHUB_REPOSITORY, GITHUB_OUTPUT, GITHUB_ACTIONS.

Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 130 interrupted.
`,
	Setup: func(f *cli.FlagSet) cli.Runner {
		o := &options{}
		f.StringVar(&o.dir, "dir", ".", "the directory to write into, `DIR`; it is created if it does not exist")
		o.build.Register(f.FlagSet)
		f.JSONFlag("print one JSON object for each output")
		f.VerboseFlag("log requests on standard error")
		f.Annotate()
		return o
	},
}

func main() { cli.Main(program.Run) }

type options struct {
	dir     string
	build   buildflags.Flags
	request *artifacts.Request
}

func (o *options) Check(args []string) (err error) {
	if err := cli.FlagsOnly(args); err != nil {
		return err
	}
	if o.request, err = o.build.Request(os.Getenv); err != nil {
		return err
	}
	// Here references are only passed on. A program that pulls them needs the list.
	o.request.Policy.AnyReference = len(o.build.Allow) == 0
	return nil
}

func (o *options) Run(ctx context.Context, out *cli.Output) int {
	if err := o.merge(ctx, out); err != nil {
		return buildflags.Code(ctx, err, out)
	}
	return out.Code(ctx)
}

// merge writes the files first: an output must not name a file that is not there.
func (o *options) merge(ctx context.Context, out *cli.Output) error {
	build, err := buildflags.Fetch(ctx, o.request, os.Getenv, out)
	if err != nil {
		return err
	}
	outputs, err := outputsOf(build)
	if err != nil {
		return err
	}
	if err := build.Files.WriteDir(o.dir); err != nil {
		return err
	}
	if file := os.Getenv("GITHUB_OUTPUT"); file != "" {
		if err := workflow.AppendOutputs(file, outputs); err != nil {
			return fmt.Errorf("write the outputs: %w", err)
		}
	}
	for _, i := range build.Outputs {
		r := &report.Output{Name: i.Name, Reference: i.Reference, Artifact: build.From(i).Name, File: i.File, RunID: build.Run.ID, RunAttempt: build.Run.Attempt, Branch: build.Run.HeadBranch}
		out.Print(r, r.Text())
	}
	return nil
}

// outputsOf returns the build's outputs and those that identify the run: a program
// that caches the images later needs them, so that an older run does not replace a
// newer one's tarball.
func outputsOf(build *artifacts.Build) ([]workflow.Output, error) {
	own := []workflow.Output{
		{Name: "run-id", Value: strconv.FormatInt(build.Run.ID, 10)},
		{Name: "run-attempt", Value: strconv.FormatInt(build.Run.Attempt, 10)},
		{Name: "branch", Value: build.Run.HeadBranch},
	}
	var outputs []workflow.Output
	for _, image := range build.Outputs {
		if slices.ContainsFunc(own, func(o workflow.Output) bool { return o.Name == image.Name }) {
			return nil, fmt.Errorf("%s:%d: the build has an output called %q, which is reserved for the run's own: rename the image", image.File, image.Line, image.Name)
		}
		outputs = append(outputs, workflow.Output{Name: image.Name, Value: image.Reference})
	}
	return append(outputs, own...), nil
}
