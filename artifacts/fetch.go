package artifacts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/dockercache/dockercache/artifacts/workflow"
	"github.com/dockercache/dockercache/internal/redact"
	"github.com/dockercache/dockercache/internal/wait"
)

// PyTorchPattern matches the names of the artifacts of PyTorch's docker-builds
// workflow: one for each image, with the image's name in place of the "*".
const PyTorchPattern = "docker-builds-artifacts-*"

// A Request states which build to fetch. The zero value of each field works, but
// one of Event and RunID is required.
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
	// Pattern selects artifacts by their names, in the syntax of [path.Match].
	// Default: [PyTorchPattern].
	Pattern string
	// Names selects and orders the outputs. Default: all, in the order in which
	// they were read.
	Names []string
	// Policy decides about the run and the references. The zero value refuses
	// every reference.
	Policy Policy
	// Accept, when not nil, decides about the run in place of Policy: it is called
	// with the run and what [Policy.Check] returns, nil if it trusts the run. To
	// be stricter, return refusal unless it is nil; to be more lenient, return nil
	// although it is not. An error of Accept is returned as a
	// refusal, of kind [ErrRefused].
	Accept func(ctx context.Context, run *Run, refusal error) error
	// Parse reads the outputs from the merged files. Policy decides about their
	// references all the same. Default: [ReadOutputs].
	Parse func(files fs.FS) (outputs, overridden []Output, err error)
	// LastWins is [MergeOptions.LastWins].
	LastWins bool
}

// A Build is the result of a trusted run.
type Build struct {
	Run *Run
	// Artifacts were downloaded. Expired matched too, but could not be.
	Artifacts, Expired []Artifact
	// Files are the files of all artifacts.
	Files *MergedDir
	// Outputs are the images that the run named, Overridden those that a later
	// file named again; see [ReadOutputs].
	Outputs, Overridden []Output
}

// Fetch finds the run, checks it by the policy, downloads its artifacts, merges
// them in memory, reads the outputs, and checks each reference by the policy. It
// writes nothing.
//
// The run of a workflow_run event is taken from the event, and refused if it is of
// another repository than Repository; any other is requested.
// An artifact that has expired is an error of kind [ErrExpired], unless all Names
// were found without it. A name that no artifact contains is of kind
// [ErrNoArtifact], and the error names the artifact where it was expected. The
// other kinds are those of [Client.List], [Client.Download], [Merge], [ReadOutputs]
// and [Policy]. At the end of ctx, [errors.Is] finds ctx.Err() and the cause.
func (c *Client) Fetch(ctx context.Context, request *Request) (*Build, error) {
	call := c.newCall()
	build, err := call.fetch(ctx, request)
	return build, call.secrets.Error(err)
}

func (c *call) fetch(ctx context.Context, request *Request) (*Build, error) {
	if request == nil {
		request = &Request{}
	}
	r := *request
	if r.Event == nil {
		r.Event = &Event{}
	}
	r.Pattern = cmp.Or(r.Pattern, PyTorchPattern)
	if r.RunID == 0 {
		r.RunID, r.Branch = r.Event.RunID, cmp.Or(r.Branch, r.Event.Branch)
	}
	r.Repository = cmp.Or(r.Repository, r.Event.Repository)
	if err := r.check(); err != nil {
		return nil, err
	}
	build := &Build{Run: r.Event.Run}
	if build.Run == nil || build.Run.ID != r.RunID {
		var err error
		if build.Run, err = c.run(ctx, r.Repository, r.RunID); err != nil {
			return nil, err
		}
	}
	if !strings.EqualFold(build.Run.Repository, r.Repository) { // the API's was compared
		return nil, build.Run.refused(fmt.Errorf("by the rule for the repository: asked for is %.200q, the event's run is of %.200q: ask for a run of that repository by its ID", r.Repository, build.Run.Repository))
	}
	if err := r.trust(ctx, build.Run); err != nil {
		return nil, err
	}
	if err := c.collect(ctx, &r, build); err != nil {
		return nil, err
	}
	if err := r.read(build); err != nil {
		return nil, err
	}
	for _, o := range build.Outputs {
		if err := c.checkEcho(ctx, "read the outputs of", r.Repository, o.Name, o.Reference, o.File); err != nil {
			return nil, err
		}
		if err := r.Policy.CheckReference(o.Reference); err != nil {
			return nil, fmt.Errorf("%s:%d in artifact %q: output %s: %w", redact.Text(o.File), o.Line, build.From(o).Name, redact.Text(o.Name), err)
		}
	}
	return build, nil
}

// From returns the artifact that contains an output's file; the zero value if none
// does.
func (b *Build) From(o Output) Artifact {
	if b.Files == nil {
		return Artifact{}
	}
	i := slices.IndexFunc(b.Files.Files, func(f MergedFile) bool { return f.Path == o.File })
	if i < 0 {
		return Artifact{}
	}
	return b.Files.Files[i].From
}

// check returns an error of the request itself, before anything is requested.
func (r *Request) check() error {
	if err := r.Policy.Validate(); err != nil {
		return err
	}
	if r.RunID == 0 {
		return &Error{Op: "find the build run in", Source: fmt.Sprintf("the event %.100q", r.Event.Name), Kind: ErrEvent,
			Err: errors.New("it names none: give the run's ID, or start the workflow by workflow_run, or by workflow_dispatch with the input run_id")}
	}
	for i, name := range r.Names {
		if !workflow.IsOutputName(name) || slices.Contains(r.Names[:i], name) {
			return &Error{Op: "select the output", Source: fmt.Sprintf("%.200q", name), Kind: ErrRequest, Err: errors.New("it is empty, given twice, or not a name of an output")}
		}
	}
	if err := checkPattern(r.Pattern); err != nil {
		return err
	}
	return checkRun(r.Repository, r.RunID)
}

// trust decides about the run, and checks that its branch is the one that was
// asked for: otherwise its images would be cached under the wrong name.
func (r *Request) trust(ctx context.Context, run *Run) error {
	err := r.Policy.Check(run)
	if r.Accept != nil {
		err = r.Accept(ctx, run, err)
	}
	switch {
	case errors.Is(err, ErrRefused):
		return err
	case err != nil:
		if ended := wait.Err(ctx); ended != nil {
			return ended
		}
		return run.refused(err)
	case r.Branch != "" && r.Branch != run.HeadBranch:
		return run.refused(fmt.Errorf("by the rule for the branch: asked for is %.200q, the run is of %.200q: give the branch that belongs to the run", r.Branch, run.HeadBranch))
	}
	return nil
}

// collect lists, downloads and merges the artifacts, one at a time: they are
// small, and GitHub asks clients not to make concurrent requests.
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
			wanted = fmt.Sprintf("; output %s was expected in artifact %.200q", r.Names[0], r.expected(r.Names[0]))
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

// read reads the outputs and selects those that were asked for.
func (r *Request) read(build *Build) error {
	parse := r.Parse
	if parse == nil {
		parse = ReadOutputs
	}
	outputs, overridden, err := parse(build.Files)
	if err == nil {
		err = checkOutputs(outputs) // of an own parser too
	}
	if err != nil {
		var bad *outputError
		if errors.As(err, &bad) && bad.file != "" {
			return fmt.Errorf("artifact %.200q of run %d of %s: %w", build.From(Output{File: bad.file}).Name, r.RunID, r.Repository, err)
		}
		if zip := zipIn(build.Files); zip != "" {
			err = fmt.Errorf("%w; %.200q in artifact %.200q is a zip that was uploaded as a file, which is not unpacked", err, zip, build.From(Output{File: zip}).Name)
			return fmt.Errorf("the artifacts of run %d of %s: %w", r.RunID, r.Repository, err)
		}
		if errors.Is(err, ErrOutputs) && len(r.Names) > 0 { // no output in any file
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

// zipIn returns the first file that is a zip, "" for none.
func zipIn(m *MergedDir) string {
	for _, f := range m.Files {
		if content, err := fs.ReadFile(m, f.Path); err == nil && looksZip(content) {
			return f.Path
		}
	}
	return ""
}

// expected is the name of the artifact where an output is expected.
func (r *Request) expected(name string) string {
	pattern := r.Pattern
	if strings.Count(pattern, "*") != 1 || strings.ContainsAny(pattern, `?[\`) || pattern == "*" {
		pattern = PyTorchPattern
	}
	return strings.Replace(pattern, "*", name, 1)
}

// missing names the artifact where an output was expected.
func (r *Request) missing(build *Build, name string) error {
	expected := r.expected(name)
	is := func(a Artifact) bool { return a.Name == expected }
	if i := slices.IndexFunc(build.Expired, is); i >= 0 {
		return r.fail(ErrExpired, "output %s: artifact %.200q, where it was expected, was kept until %s", name, expected, dateOf(build.Expired[i].ExpiresAt))
	}
	if slices.ContainsFunc(build.Artifacts, is) {
		return r.fail(ErrNoArtifact, "output %s: artifact %.200q does not contain it: did the build fail?", name, expected)
	}
	return r.fail(ErrNoArtifact, "output %s: the run has no artifact %.200q, where it was expected: did the build fail, or is the name wrong?", name, expected)
}

func (r *Request) fail(kind error, format string, args ...any) error {
	return &Error{Op: fmt.Sprintf("fetch run %d of", r.RunID), Source: r.Repository, Kind: kind, Err: fmt.Errorf(format, args...)}
}
