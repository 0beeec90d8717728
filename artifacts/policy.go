package artifacts

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"github.com/dockercache/dockercache/internal/refname"
)

// A Policy decides which build runs, and which references in them, are trusted.
// The filter of a workflow is not enough: a fork's pull request from a branch that
// is called "main" there passes "branches: [main]".
//
// The zero value trusts runs that are completed and succeeded, were started by one
// of [DefaultEvents], and whose commit is from the repository itself; and no
// reference. Nil is the zero value. It is safe for concurrent use.
type Policy struct {
	// Owner is the owner that the repository must have. Default: any.
	Owner string
	// Branches are the branches that the run may be of; "PREFIX*" is for all that
	// begin so. Default: any.
	Branches []string
	// Events are the events that may have started the run. Default:
	// [DefaultEvents]. To allow "pull_request" is to trust code that was not
	// reviewed.
	Events []string
	// Workflows are the workflows that the run may be of: files, such as
	// ".github/workflows/docker-builds.yml" or "docker-builds.yml" for short, or
	// names. What ends in .yml or .yaml is a file. Prefer that: a workflow has the
	// name that its file states, so any file may state that of another.
	// Default: any.
	Workflows []string
	// Allow are the repositories that references may be in, as HOST/REPOSITORY,
	// or HOST/PATH/* for all below. Default: none; see AnyReference.
	Allow []string
	// AnyReference allows references in any repository, if Allow is empty.
	AnyReference bool
}

// DefaultEvents returns those that only a person who may write to a repository
// can cause: push, schedule and workflow_dispatch.
func DefaultEvents() []string { return []string{"push", "schedule", "workflow_dispatch"} }

// Validate returns an error of kind [ErrRequest] if no reference could match an
// entry of Allow, or no run an entry of Workflows.
func (p *Policy) Validate() error {
	if p == nil {
		return nil
	}
	for _, entry := range p.Allow {
		if err := checkAllowed(entry); err != nil {
			return &Error{Op: "allow", Source: fmt.Sprintf("%.200q", refname.Printable(entry)), Kind: ErrRequest, Err: err}
		}
	}
	for _, entry := range p.Workflows {
		if file, is := workflowFile(entry); entry == "" || is && (path.IsAbs(file) || path.Clean(file) != file) {
			return &Error{Op: "trust the workflow", Source: fmt.Sprintf("%.200q", entry), Kind: ErrRequest, Err: errors.New("want a file as .github/workflows/FILE.yml, or a name")}
		}
	}
	return nil
}

// Check decides about a run. A refusal is an error of kind [ErrRefused] with the
// rule, the value that it refused, and advice.
func (p *Policy) Check(run *Run) error {
	if p == nil {
		p = &Policy{}
	}
	if run == nil {
		run = &Run{}
	}
	refuse := func(rule, format string, args ...any) error {
		return run.refused(fmt.Errorf("by the rule for the %s: %s", rule, fmt.Sprintf(format, args...)))
	}
	events := p.Events
	if len(events) == 0 {
		events = DefaultEvents()
	}
	switch {
	case checkRepository(run.Repository) != nil:
		return refuse("repository", "its name is not OWNER/NAME")
	case p.Owner != "" && !strings.EqualFold(run.Owner(), p.Owner):
		return refuse("owner", "it is %q, want %q: use the owner's own repository, not a fork", run.Owner(), p.Owner)
	case run.Status != "completed":
		return refuse("status", "it is %q, want \"completed\": wait until the run has ended", run.Status)
	case run.Conclusion != "success":
		return refuse("conclusion", "it is %q, want \"success\": run the build again", run.Conclusion)
	case !slices.Contains(events, run.Event):
		return refuse("event", "the run was started by %q, allowed are %q: use a run of the branch itself", run.Event, events)
	case !strings.EqualFold(run.HeadRepository, run.Repository):
		return refuse("head repository", "the commit is from %q: use a run of the repository's own branch", cmp.Or(run.HeadRepository, "a deleted fork"))
	case len(p.Branches) > 0 && !slices.ContainsFunc(p.Branches, func(pattern string) bool { return matchBranch(pattern, run.HeadBranch) }):
		return refuse("branch", "it is %q, allowed are %q: use a run of one of these", run.HeadBranch, p.Branches)
	case len(p.Workflows) > 0 && !slices.ContainsFunc(p.Workflows, run.isOf):
		return refuse("workflow", "it is %q in %q, allowed are %q: use a run of one of these", run.Name, run.Path, p.Workflows)
	}
	return nil
}

// refused is a refusal of the run.
func (r *Run) refused(why error) error {
	return &Error{Op: fmt.Sprintf("trust run %d of", r.ID), Source: fmt.Sprintf("%.200q", r.Repository), Kind: ErrRefused, Err: why}
}

// matchBranch matches NAME or PREFIX*.
func matchBranch(pattern, branch string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return branch != "" && strings.HasPrefix(branch, prefix)
	}
	return branch != "" && branch == pattern
}

// isOf reports whether a run is of a workflow, by its file or its name.
func (r *Run) isOf(workflow string) bool {
	file, is := workflowFile(workflow)
	if !is {
		return workflow != "" && workflow == r.Name
	}
	rest, ok := strings.CutPrefix(r.Path, file)
	if !ok || rest == "" {
		return ok
	}
	// "…/x.yml@refs/heads/main". A file may have "@" in its name too, "…/x.yml@y.yml":
	// then it is another one.
	ref, ok := strings.CutPrefix(rest, "@")
	return ok && ref != "" && !strings.Contains(ref, "@") && !isWorkflowFile(ref)
}

// workflowFile returns the path of a workflow's file in its repository, and whether an
// entry of [Policy.Workflows] is a file.
func workflowFile(entry string) (file string, is bool) {
	if !isWorkflowFile(entry) && !strings.Contains(entry, ".yml@") && !strings.Contains(entry, ".yaml@") {
		return "", false
	}
	if name, _, _ := strings.Cut(entry, "@"); !strings.Contains(name, "/") {
		return ".github/workflows/" + entry, true
	}
	return entry, true
}

// isWorkflowFile reports whether a name ends as those of all workflow files do.
// https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#about-yaml-syntax-for-workflows
func isWorkflowFile(name string) bool {
	return strings.HasSuffix(name, ".yml") || strings.HasSuffix(name, ".yaml")
}

// checkAllowed checks an entry of [Policy.Allow].
func checkAllowed(entry string) error {
	prefix, all := strings.CutSuffix(entry, "/*")
	if all {
		prefix += "/x"
	}
	named, err := reference.ParseNormalizedNamed(prefix)
	switch {
	case err != nil:
		return fmt.Errorf("want HOST/REPOSITORY: %w", err)
	case !reference.IsNameOnly(named):
		return errors.New("want HOST/REPOSITORY, without a tag or digest")
	case named.Name() != prefix:
		// No normalized reference would match it.
		return fmt.Errorf("want HOST/REPOSITORY in full, which would be %s", strings.TrimSuffix(named.Name(), "/x"))
	}
	return nil
}

// CheckReference decides about an image's reference. It is normalized as
// registries and Docker do, and its repository, host and port included, must be
// one of Allow: one that only looks like an allowed one ("ghcr.io@evil/x",
// "ghcr.io:443/x", "GHCR.IO/x") is not. A refusal is an error of kind
// [ErrRefused].
func (p *Policy) CheckReference(ref string) error {
	if p == nil {
		p = &Policy{}
	}
	refuse := func(format string, args ...any) error {
		return &Error{Op: "trust the reference", Source: fmt.Sprintf("%.300q", refname.Printable(ref)), Kind: ErrRefused, Err: fmt.Errorf(format, args...)}
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return refuse("by the rule for references: %w", err)
	}
	if len(p.Allow) == 0 && p.AnyReference {
		return nil
	}
	if slices.ContainsFunc(p.Allow, func(entry string) bool {
		prefix, all := strings.CutSuffix(entry, "*")
		return entry == named.Name() || all && strings.HasSuffix(prefix, "/") && strings.HasPrefix(named.Name(), prefix)
	}) {
		return nil
	}
	return refuse("by the rule for repositories: it is in %q, allowed are %q: allow that one if it is yours", named.Name(), p.Allow)
}
