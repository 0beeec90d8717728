package artifacts

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
)

// A Gate decides which build runs, and which references in them, are trusted.
// The filter of a workflow is not enough: a fork's pull request from a branch
// that it calls "main" passes "branches: [main]".
//
// The zero value lets runs through that succeeded, were started by one of
// [DefaultEvents], and whose commit is from the repository itself; and no
// reference.
type Gate struct {
	// Owner is who must own the repository. Default: anyone.
	Owner string
	// Branches are the names that the run's branch may have; "PREFIX*" is for
	// all that begin so. Default: any.
	Branches []string
	// Events are what may have started the run. Default: [DefaultEvents]. To
	// allow "pull_request" is to take what was not reviewed.
	Events []string
	// Workflows are the workflows that the run may be of: a name, or a file such
	// as ".github/workflows/docker-builds.yml" or "docker-builds.yml".
	// Default: any.
	Workflows []string
	// Allow are the repositories that references may be in, as HOST/REPOSITORY,
	// or HOST/PATH/* for all below. Default: none; see AnyReference.
	Allow []string
	// AnyReference turns the check of references off, if Allow is empty.
	AnyReference bool
}

// DefaultEvents are those that only who may write to a repository can cause:
// push, schedule and workflow_dispatch.
func DefaultEvents() []string { return []string{"push", "schedule", "workflow_dispatch"} }

// Validate finds what is wrong with the gate itself: entries of Allow that no
// reference could match. The error is of kind [ErrRequest].
func (g *Gate) Validate() error {
	for _, entry := range g.Allow {
		if err := checkAllowed(entry); err != nil {
			return &Error{Op: "allow", Source: fmt.Sprintf("%.200q", entry), Kind: ErrRequest, Err: err}
		}
	}
	return nil
}

// Check decides about a run. A refusal is of kind [ErrRefused], and says which
// rule refused, what it saw, and what to do.
func (g *Gate) Check(run *Run) error {
	refuse := func(rule, format string, args ...any) error {
		return &Error{Op: fmt.Sprintf("trust run %d of", run.ID), Source: fmt.Sprintf("%.200q", run.Repository), Kind: ErrRefused,
			Err: fmt.Errorf("by the rule for the %s: %s", rule, fmt.Sprintf(format, args...))}
	}
	events := g.Events
	if len(events) == 0 {
		events = DefaultEvents()
	}
	switch {
	case checkRepository(run.Repository) != nil:
		return refuse("repository", "its name is not OWNER/NAME")
	case g.Owner != "" && !strings.EqualFold(run.Owner(), g.Owner):
		return refuse("owner", "it is %q, want %q: this is for the owner's own repository, not for forks", run.Owner(), g.Owner)
	case run.Status != "completed":
		return refuse("status", "it is %q, want \"completed\": wait until the run has ended", run.Status)
	case run.Conclusion != "success":
		return refuse("conclusion", "it is %q, want \"success\": run the build again", run.Conclusion)
	case !slices.Contains(events, run.Event):
		return refuse("event", "the run was started by %q, allowed are %q: take a run of the branch itself", run.Event, events)
	case !strings.EqualFold(run.HeadRepository, run.Repository):
		return refuse("head repository", "the commit is from %q: take a run of the repository's own branch", cmp.Or(run.HeadRepository, "a deleted fork"))
	case len(g.Branches) > 0 && !slices.ContainsFunc(g.Branches, func(pattern string) bool { return matchBranch(pattern, run.HeadBranch) }):
		return refuse("branch", "it is %q, allowed are %q: take a run of one of these", run.HeadBranch, g.Branches)
	case len(g.Workflows) > 0 && !slices.ContainsFunc(g.Workflows, run.isOf):
		return refuse("workflow", "it is %q in %q, allowed are %q: take a run of one of these", run.Name, run.Path, g.Workflows)
	}
	return nil
}

// matchBranch matches NAME or PREFIX*.
func matchBranch(pattern, branch string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return branch != "" && strings.HasPrefix(branch, prefix)
	}
	return branch != "" && branch == pattern
}

// isOf tells whether a run is of a workflow, by its name or its file.
func (r *Run) isOf(workflow string) bool {
	file, _, _ := strings.Cut(r.Path, "@") // "…/x.yml@refs/heads/main"
	return workflow != "" && (workflow == r.Name || workflow == file || workflow == path.Base(file))
}
