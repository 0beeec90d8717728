// Package buildflags has the flags of the examples that start from a build run, and
// fetches what the build named.
package buildflags

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/examples/internal/cli"
)

// Flags are the values of the flags; see [Flags.Register].
type Flags struct {
	Repository string
	RunID      int64
	Pattern    string
	Names      cli.CommaList
	Owner      string
	Events     cli.CommaList
	Branches   cli.CommaList
	Workflows  cli.CommaList
	Allow      cli.CommaList
	LastWins   bool
	Attempt    int64
}

// Register defines the flags in a set.
func (f *Flags) Register(set *flag.FlagSet) {
	set.StringVar(&f.Repository, "repo", "", "the repository that the build ran in, as `OWNER/NAME` (default: the event's)")
	set.Int64Var(&f.RunID, "run-id", 0, "the `ID` of the build run, from its URL (default: the event's)")
	set.StringVar(&f.Pattern, "artifacts", artifacts.PyTorchPattern, "which artifacts of the run, as a `PATTERN` of their names")
	set.Var(&f.Names, "names", "which of the build's outputs, in this order, as `NAME`,NAME (default: all)")
	set.Var(&f.Allow, "allow", "a repository that references may be in, as `HOST/REPOSITORY`, or HOST/PATH/* for all below; may be repeated")
	set.StringVar(&f.Owner, "owner", "", "refuse runs of repositories that this `OWNER` does not own")
	set.Var(&f.Branches, "branches", "refuse runs of other branches, as `BRANCH` or PREFIX*, separated by commas")
	set.Var(&f.Events, "events", "refuse runs that another `EVENT` started, separated by commas (default "+strings.Join(artifacts.DefaultEvents(), ",")+")")
	set.Var(&f.Workflows, "workflows", "refuse runs of other workflows, as a `FILE` such as .github/workflows/docker-builds.yml, or a name, which any file can give itself; separated by commas")
	set.BoolVar(&f.LastWins, "last-wins", false, "if two artifacts contain a file with different content, take the one of the later artifact, by name")
}

// RegisterAttempt defines -run-attempt, see [Flags.Choose].
func (f *Flags) RegisterAttempt(set *flag.FlagSet) {
	set.Int64Var(&f.Attempt, "run-attempt", 0, "with IMAGE and -run-id: which attempt of the run it was, `N` (default: the event's, with its run)")
}

// Request makes a request of the flags and, without -run-id, of the event that the
// environment names. An error is one of usage, or a [cli.Failure] of the event.
func (f *Flags) Request(getenv func(string) string) (*artifacts.Request, error) {
	r := &artifacts.Request{
		Repository: f.Repository, RunID: f.RunID, Pattern: f.Pattern, Names: f.Names, LastWins: f.LastWins,
		Policy: artifacts.Policy{Owner: f.Owner, Branches: f.Branches, Events: f.Events, Workflows: f.Workflows, Allow: f.Allow},
	}
	if f.RunID < 0 {
		return nil, fmt.Errorf("-run-id %d: want the number from the run's URL", f.RunID)
	}
	if err := f.checkPolicy(); err != nil {
		return nil, err
	}
	for i, name := range f.Names {
		if slices.Contains(f.Names[:i], name) {
			return nil, fmt.Errorf("-names: %q is there twice", name)
		}
	}
	if f.RunID != 0 && f.Repository == "" {
		r.Repository = getenv("GITHUB_REPOSITORY")
		if r.Repository == "" {
			return nil, errors.New("-run-id needs -repo outside of GitHub Actions")
		}
	}
	if f.RunID != 0 {
		return r, nil
	}
	if getenv("GITHUB_EVENT_NAME") == "" {
		return nil, errors.New("-repo and -run-id are required outside of GitHub Actions: which build run?")
	}
	var err error
	r.Event, err = event(getenv)
	return r, err
}

func (f *Flags) checkPolicy() error {
	allow, workflows := artifacts.Policy{Allow: f.Allow}, artifacts.Policy{Workflows: f.Workflows}
	if err := allow.Validate(); err != nil {
		return fmt.Errorf("-allow: %w", err)
	}
	if err := workflows.Validate(); err != nil {
		return fmt.Errorf("-workflows: %w", err)
	}
	return nil
}

func event(getenv func(string) string) (*artifacts.Event, error) {
	event, err := artifacts.EnvironmentEvent(getenv)
	if err != nil {
		err = cli.Failure(err)
	}
	return event, err
}

// Choose checks the flags of a program that takes images as arguments, or else those of
// a build run. With images it returns the run that they come from: that of -run-id, or
// of the event workflow_run; without either there is none. Without images it returns
// the request for them. Errors are as those of [Flags.Request].
func (f *Flags) Choose(images []string, branch string, getenv func(string) string) (*artifacts.Request, tarball.Run, error) {
	if len(images) > 0 {
		run, err := f.runOfImages(getenv)
		return nil, run, err
	}
	if f.Attempt != 0 {
		return nil, tarball.Run{}, errors.New("-run-attempt is for IMAGE arguments: of a build run it is asked for")
	}
	request, err := f.Request(getenv)
	switch {
	case errors.Is(err, artifacts.ErrEvent):
		return nil, tarball.Run{}, err
	case err != nil:
		return nil, tarball.Run{}, fmt.Errorf("no IMAGE was given, and for the images of a build run: %w", err)
	case len(f.Allow) == 0:
		return nil, tarball.Run{}, errors.New("-allow is required without IMAGE: in which repositories may the images be that the build names?")
	}
	request.Branch = branch
	return request, tarball.Run{}, nil
}

func (f *Flags) runOfImages(getenv func(string) string) (tarball.Run, error) {
	for name, given := range map[string]bool{
		"repo": f.Repository != "", "names": len(f.Names) > 0, "owner": f.Owner != "", "branches": len(f.Branches) > 0, "events": len(f.Events) > 0,
		"workflows": len(f.Workflows) > 0, "last-wins": f.LastWins, "artifacts": f.Pattern != artifacts.PyTorchPattern,
	} {
		if given {
			return tarball.Run{}, fmt.Errorf("-%s is about the build that names the images: leave it or the IMAGE arguments out", name)
		}
	}
	if err := f.checkPolicy(); err != nil {
		return tarball.Run{}, err
	}
	switch {
	case f.RunID < 0 || f.Attempt < 0:
		return tarball.Run{}, errors.New("-run-id and -run-attempt: want the numbers of the build run")
	case f.Attempt != 0 && f.RunID == 0:
		return tarball.Run{}, errors.New("-run-attempt needs -run-id")
	case f.RunID > 0:
		return tarball.Run{ID: f.RunID, Attempt: f.Attempt}, nil
	case getenv("GITHUB_EVENT_NAME") != "workflow_run":
		return tarball.Run{}, nil
	}
	event, err := event(getenv)
	if err != nil || event.Run == nil {
		return tarball.Run{}, err
	}
	return tarball.Run{ID: event.Run.ID, Attempt: event.Run.Attempt}, nil
}

// Fetch fetches what a build run named, and warns of outputs that were overridden.
func Fetch(ctx context.Context, request *artifacts.Request, getenv func(string) string, out *cli.Output) (*artifacts.Build, error) {
	client, err := newClient(getenv, out.Log)
	if err != nil {
		return nil, err
	}
	build, err := client.Fetch(ctx, request)
	if err != nil {
		return nil, err
	}
	for _, f := range build.Files.Files {
		for _, old := range f.Overridden {
			out.Warn(fmt.Sprintf("%s of artifact %s is overridden by artifact %s", f.Path, old.Name, f.From.Name))
		}
	}
	for _, old := range build.Overridden {
		out.Warn(fmt.Sprintf("%s:%d: output %s is overridden by a later file", old.File, old.Line, old.Name))
	}
	return build, nil
}

// Images fetches which images a build run named, prints them, and returns them with
// the branch and the run that they come from. A branch that check refuses is an error.
func Images(ctx context.Context, request *artifacts.Request, check func(branch string) error, getenv func(string) string, out *cli.Output) (images []string, branch string, run tarball.Run, err error) {
	build, err := Fetch(ctx, request, getenv, out)
	if err != nil {
		return nil, "", tarball.Run{}, err
	}
	title := fmt.Sprintf("run %d of %s", build.Run.ID, build.Run.Repository)
	branch, run = build.Run.HeadBranch, tarball.Run{ID: build.Run.ID, Attempt: build.Run.Attempt}
	if err := check(branch); err != nil {
		return nil, "", tarball.Run{}, fmt.Errorf("%s: %w", title, err)
	}
	var lines []string
	for _, output := range build.Outputs {
		lines = append(lines, output.Name+"="+output.Reference)
		if !slices.Contains(images, output.Reference) {
			images = append(images, output.Reference)
		}
	}
	out.Group("Build "+title+", branch "+branch, lines)
	return images, branch, run, nil
}

// newClient returns a client with the token of the environment, GITHUB_TOKEN or
// GH_TOKEN. It is not a flag, since every process of the machine could read it
// there.
func newClient(getenv func(string) string, logger *slog.Logger) (*artifacts.Client, error) {
	token := strings.TrimSpace(getenv("GITHUB_TOKEN"))
	if token == "" {
		token = getenv("GH_TOKEN")
	}
	return artifacts.New(&artifacts.Options{APIURL: getenv("GITHUB_API_URL"), Token: token, Logger: logger})
}

// Code ends a program whose build could not be fetched or used: it prints why and
// returns the exit code.
func Code(ctx context.Context, err error, out *cli.Output) int {
	if ctx.Err() != nil {
		return cli.Interrupted
	}
	out.Fail(err)
	if errors.Is(err, artifacts.ErrRequest) { // such as a -repo that is none
		return cli.Usage
	}
	return cli.Failed
}
