package artifacts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// DefaultPattern is what PyTorch's docker-builds workflow calls its artifacts:
// one for each image, with the image's name in place of the "*".
const DefaultPattern = "docker-builds-artifacts-*"

// A Request says which build to fetch. The zero value of each field but one of
// Event and RunID works.
type Request struct {
	// Event is what started this job. The fields below override it.
	Event *Event
	// Repository is where the build ran, as OWNER/NAME. Default: the event's.
	Repository string
	// RunID is the build run. Default: the event's.
	RunID int64
	// Branch, when not empty, must be the run's branch. Default: the event's, if
	// RunID is the event's too.
	Branch string
	// Pattern selects artifacts by their names, as [path.Match] has it.
	// Default: [DefaultPattern].
	Pattern string
	// Names selects and orders the outputs. Default: all, in the order of the
	// files that they are in.
	Names []string
	// Gate decides about the run and the references. Its default lets no
	// reference through.
	Gate Gate
	// LastWins is [MergeOptions.LastWins].
	LastWins bool
}

// A Build is what a trusted run left behind.
type Build struct {
	Run *Run
	// Artifacts are those that were downloaded, Expired those that matched but
	// are gone.
	Artifacts, Expired []Artifact
	// Files are the files of all of them.
	Files *Merged
	// Outputs are the images that the run made, Overridden those that a later
	// file named again; see [ReadOutputs].
	Outputs, Overridden []Output
}

// Fetch does all of it: it finds the run, asks the gate about it, downloads its
// artifacts, merges them in memory, reads the outputs, and asks the gate about
// each reference. Nothing is written anywhere.
//
// The run of a workflow_run event is taken from the event; any other is asked
// for. Artifacts that have expired are an error of kind [ErrExpired], except
// when all Names were found without them. A name that no artifact has brought is
// of kind [ErrNoArtifact], and the error says which one should have. The other
// kinds are those of the methods that it calls.
func (c *Client) Fetch(ctx context.Context, request *Request) (*Build, error) {
	r := *request
	if r.Event == nil {
		r.Event = &Event{}
	}
	r.Pattern = cmp.Or(r.Pattern, DefaultPattern)
	if r.RunID == 0 {
		r.RunID, r.Branch = r.Event.RunID, cmp.Or(r.Branch, r.Event.Branch)
	}
	r.Repository = cmp.Or(r.Repository, r.Event.Repository)
	if err := r.check(); err != nil {
		return nil, err
	}
	call := c.newCall()
	build := &Build{Run: r.Event.Run}
	if build.Run == nil || build.Run.ID != r.RunID || !strings.EqualFold(build.Run.Repository, r.Repository) {
		var err error
		if build.Run, err = call.run(ctx, r.Repository, r.RunID); err != nil {
			return nil, err
		}
	}
	if err := r.trust(build.Run); err != nil {
		return nil, err
	}
	if err := call.collect(ctx, &r, build); err != nil {
		return nil, err
	}
	if err := r.read(build); err != nil {
		return nil, err
	}
	for _, o := range build.Outputs {
		if err := r.Gate.CheckReference(o.Reference); err != nil {
			return nil, fmt.Errorf("%s:%d in artifact %q: output %s: %w", clean(o.File), o.Line, build.From(o).Name, o.Name, err)
		}
	}
	return build, nil
}

// From returns the artifact that brought an output; the zero value for one that
// is not of this build.
func (b *Build) From(o Output) Artifact {
	i := slices.IndexFunc(b.Files.Files, func(f MergedFile) bool { return f.Path == o.File })
	if i < 0 {
		return Artifact{}
	}
	return b.Files.Files[i].From
}

// check finds what is wrong before anything is asked for.
func (r *Request) check() error {
	if err := r.Gate.Validate(); err != nil {
		return err
	}
	if r.RunID == 0 {
		return &Error{Op: "find the build run in", Source: fmt.Sprintf("the event %.100q", r.Event.Name), Kind: ErrEvent,
			Err: errors.New("it names none: give the run's ID, or start the workflow by workflow_run, or by workflow_dispatch with the input run_id")}
	}
	for i, name := range r.Names {
		if !outputNames().MatchString(name) || slices.Contains(r.Names[:i], name) {
			return &Error{Op: "select the output", Source: fmt.Sprintf("%.200q", name), Kind: ErrRequest, Err: errors.New("it is empty, there twice, or not a name of an output")}
		}
	}
	if err := checkPattern(r.Pattern); err != nil {
		return err
	}
	return checkRun(r.Repository, r.RunID)
}

// trust asks the gate, and checks that a person who asked for a branch did not
// give the run of another: its images would be stocked under the wrong name.
func (r *Request) trust(run *Run) error {
	if err := r.Gate.Check(run); err != nil {
		return err
	}
	if r.Branch != "" && r.Branch != run.HeadBranch {
		return &Error{Op: fmt.Sprintf("trust run %d of", run.ID), Source: run.Repository, Kind: ErrRefused,
			Err: fmt.Errorf("by the rule for the branch: asked for is %.200q, the run is of %.200q: give the branch that belongs to the run", r.Branch, run.HeadBranch)}
	}
	return nil
}

// collect lists, downloads and merges the artifacts, one at a time: they are
// small, and the API asks not to be asked side by side.
func (c *call) collect(ctx context.Context, r *Request, build *Build) error {
	listed, err := c.list(ctx, r.Repository, r.RunID, r.Pattern)
	if err != nil {
		return err
	}
	var total int64
	for _, a := range listed {
		if a.Expired {
			build.Expired = append(build.Expired, a)
			c.options.Logger.WarnContext(ctx, "artifact has expired", "name", a.Name, "kept until", dateOf(a.ExpiresAt))
			continue
		}
		if total += a.Size; total > c.options.Limits.TotalBytes {
			return r.fail(ErrLimit, "the artifacts have more than %d bytes together", c.options.Limits.TotalBytes)
		}
		build.Artifacts = append(build.Artifacts, a)
	}
	if len(build.Artifacts) == 0 {
		if len(build.Expired) > 0 {
			return r.fail(ErrExpired, "all %d artifacts, the first was kept until %s", len(build.Expired), dateOf(build.Expired[0].ExpiresAt))
		}
		wanted := ""
		if len(r.Names) > 0 {
			wanted = fmt.Sprintf("; artifact %.200q should have brought output %s", r.shouldBring(r.Names[0]), r.Names[0])
		}
		return r.fail(ErrNoArtifact, "no artifact matches %.200q%s: check the pattern, and the steps of the build that upload", r.Pattern, wanted)
	}
	archives := make([]*Archive, 0, len(build.Artifacts))
	for _, a := range build.Artifacts {
		archive, err := c.download(ctx, r.Repository, a)
		if err != nil {
			return err
		}
		archives = append(archives, archive)
	}
	build.Files, err = Merge(archives, &MergeOptions{LastWins: r.LastWins, Limits: c.options.Limits})
	return err
}

// read reads the outputs and selects those that are wanted.
func (r *Request) read(build *Build) error {
	outputs, overridden, err := ReadOutputs(build.Files)
	if err != nil {
		var bad *outputError
		if errors.As(err, &bad) && bad.file != "" {
			return fmt.Errorf("artifact %.200q of run %d of %s: %w", build.From(Output{File: bad.file}).Name, r.RunID, r.Repository, err)
		}
		if errors.Is(err, ErrOutputs) && len(r.Names) > 0 { // not one line in any file
			return r.missing(build, r.Names[0])
		}
		return fmt.Errorf("the artifacts of run %d of %s: %w", r.RunID, r.Repository, err)
	}
	build.Outputs, build.Overridden = outputs, overridden
	if len(r.Names) == 0 {
		if len(build.Expired) > 0 {
			return r.fail(ErrExpired, "artifact %.200q was kept until %s", build.Expired[0].Name, dateOf(build.Expired[0].ExpiresAt))
		}
		return nil
	}
	build.Outputs = nil
	for _, name := range r.Names {
		i := slices.IndexFunc(outputs, func(o Output) bool { return o.Name == name })
		if i < 0 {
			return r.missing(build, name)
		}
		build.Outputs = append(build.Outputs, outputs[i])
	}
	return nil
}

// shouldBring is what the artifact that brings an output is called.
func (r *Request) shouldBring(name string) string {
	pattern := r.Pattern
	if strings.Count(pattern, "*") != 1 || strings.ContainsAny(pattern, `?[\`) || pattern == "*" {
		pattern = DefaultPattern
	}
	return strings.Replace(pattern, "*", name, 1)
}

// missing says which artifact should have brought an output.
func (r *Request) missing(build *Build, name string) error {
	should := r.shouldBring(name)
	is := func(a Artifact) bool { return a.Name == should }
	if i := slices.IndexFunc(build.Expired, is); i >= 0 {
		return r.fail(ErrExpired, "output %s: artifact %.200q, which should have brought it, was kept until %s", name, should, dateOf(build.Expired[i].ExpiresAt))
	}
	if slices.ContainsFunc(build.Artifacts, is) {
		return r.fail(ErrNoArtifact, "output %s: artifact %.200q, which should have brought it, has no line %s=REFERENCE: did the build fail?", name, should, name)
	}
	return r.fail(ErrNoArtifact, "output %s: the run has no artifact %.200q, which should have brought it: did the build fail, or is the name another?", name, should)
}

func (r *Request) fail(kind error, format string, args ...any) error {
	return &Error{Op: fmt.Sprintf("fetch run %d of", r.RunID), Source: r.Repository, Kind: kind, Err: fmt.Errorf(format, args...)}
}
