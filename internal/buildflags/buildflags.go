// Package buildflags has the flags of the examples that start from a build run,
// and makes requests of them and of the environment of a GitHub runner.
package buildflags

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/internal/command"
)

// Flags are the values of the flags; see [Flags.Register].
type Flags struct {
	Repository string
	RunID      int64
	Pattern    string
	Names      List
	Owner      string
	Events     List
	Branches   List
	Workflows  List
	Allow      List
	LastWins   bool
}

// List is a flag that may be repeated and takes values separated by commas; none
// may be empty.
type List []string

func (l *List) String() string { return strings.Join(*l, ",") }

// Set adds the values in s.
func (l *List) Set(s string) error {
	for value := range strings.SplitSeq(s, ",") {
		if value = strings.TrimSpace(value); value == "" {
			return errors.New("a value is empty: was a variable not set?")
		}
		*l = append(*l, value)
	}
	return nil
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
	set.Var(&f.Workflows, "workflows", "refuse runs of other workflows, as a name or `FILE`, separated by commas")
	set.BoolVar(&f.LastWins, "last-wins", false, "if two artifacts contain a file with different content, take the one of the later artifact, by name")
}

// Request makes a request of the flags and, without -run-id, of the event that the
// environment names. An error is one of usage, unless it wraps
// [artifacts.ErrEvent].
func (f *Flags) Request(getenv func(string) string) (*artifacts.Request, error) {
	r := &artifacts.Request{
		Repository: f.Repository, RunID: f.RunID, Pattern: f.Pattern, Names: f.Names, LastWins: f.LastWins,
		Policy: artifacts.Policy{Owner: f.Owner, Branches: f.Branches, Events: f.Events, Workflows: f.Workflows, Allow: f.Allow},
	}
	if f.RunID < 0 {
		return nil, fmt.Errorf("-run-id %d: want the number from the run's URL", f.RunID)
	}
	if err := r.Policy.Validate(); err != nil {
		return nil, fmt.Errorf("-allow: %w", err)
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
	if r.Event, err = artifacts.EnvironmentEvent(getenv); err != nil {
		return nil, err
	}
	return r, nil
}

// SayUsage is [command.SayUsage], but for an unusable event, which is not in the
// command line.
func SayUsage(stderr io.Writer, program string, err error) {
	if errors.Is(err, artifacts.ErrEvent) {
		command.Say(stderr, program, err)
		return
	}
	command.SayUsage(stderr, program, err)
}

// Client returns a client with the token of the environment, GITHUB_TOKEN or
// GH_TOKEN. It is not a flag, since every process of the machine could read it
// there.
func Client(getenv func(string) string, logger *slog.Logger) (*artifacts.Client, error) {
	token := getenv("GITHUB_TOKEN")
	if token == "" {
		token = getenv("GH_TOKEN")
	}
	return artifacts.New(&artifacts.Options{APIURL: getenv("GITHUB_API_URL"), Token: strings.TrimSpace(token), Logger: logger})
}
