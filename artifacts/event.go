package artifacts

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/dockercache/dockercache/internal/strictjson"
)

// An Event is what started a workflow, as far as it names a build run:
// workflow_run does, and workflow_dispatch may by its inputs.
// https://docs.github.com/en/webhooks/webhook-events-and-payloads
type Event struct {
	// Name is the event, such as "workflow_run".
	Name string
	// Repository is where the workflow was started, as OWNER/NAME.
	Repository string
	// Run is the finished run of a workflow_run; else nil.
	Run *Run
	// RunID is the ID of the build run: of Run, or the input "run_id" of a
	// workflow_dispatch. 0 for none.
	RunID int64
	// Branch is the input "branch" of a workflow_dispatch, "" for none.
	Branch string
}

// maxEvent is the limit on an event, in bytes; GitHub's is 25 MB.
const maxEvent = 32 << 20

// ReadEvent reads the payload of an event, at most 32 MiB. Of events other than
// workflow_run and workflow_dispatch it reads only the repository. Names that are read
// must be there once and in lower case. The run of a workflow_run must be of the event's
// repository. Its errors are of kind [ErrEvent].
func ReadEvent(name string, r io.Reader) (*Event, error) {
	fail := func(format string, args ...any) (*Event, error) {
		return nil, &Error{Op: "read the event", Source: fmt.Sprintf("%.100q", name), Kind: ErrEvent, Err: fmt.Errorf(format, args...)}
	}
	if r == nil {
		return fail("there is no payload")
	}
	raw, err := io.ReadAll(io.LimitReader(r, maxEvent+1))
	switch {
	case err != nil:
		return fail("%w", err)
	case len(raw) > maxEvent:
		return fail("it has more than %d bytes", maxEvent)
	}
	var w struct {
		Action      string   `json:"action"`
		Repository  wireRepo `json:"repository"`
		WorkflowRun *wireRun `json:"workflow_run"`
		Inputs      struct {
			Branch string `json:"branch"`
			RunID  string `json:"run_id"`
		} `json:"inputs"`
	}
	if err := strictjson.Unmarshal(raw, &w); err != nil {
		return fail("%w", err)
	}
	e := &Event{Name: name, Repository: w.Repository.FullName}
	switch name {
	case "workflow_run":
		if w.WorkflowRun == nil || w.WorkflowRun.ID <= 0 {
			return fail("it has no workflow_run with an ID")
		}
		if w.Action != "completed" {
			return fail("the run is %.100q: let the workflow be started by the type \"completed\"", w.Action)
		}
		if in := w.WorkflowRun.Repository.FullName; e.Repository != "" && !strings.EqualFold(in, e.Repository) {
			return fail("it is of %.200q, but its run is of %.200q", e.Repository, in)
		}
		e.Run, e.RunID = w.WorkflowRun.run(), w.WorkflowRun.ID
	case "workflow_dispatch":
		e.Branch = w.Inputs.Branch
		if w.Inputs.RunID == "" {
			break
		}
		if e.RunID, err = strconv.ParseInt(w.Inputs.RunID, 10, 64); err != nil || e.RunID <= 0 {
			return fail("its input run_id is %.100q: want the number from the run's URL", w.Inputs.RunID)
		}
	}
	return e, nil
}

// EnvironmentEvent reads the event that a GitHub runner names in the environment,
// by GITHUB_EVENT_NAME and GITHUB_EVENT_PATH. The payload must be of GITHUB_REPOSITORY,
// if both name one; either is enough. Nil for getenv means [os.Getenv]. Outside of
// GitHub Actions it is an error of kind [ErrEvent].
func EnvironmentEvent(getenv func(string) string) (*Event, error) {
	if getenv == nil {
		getenv = os.Getenv
	}
	name, file := getenv("GITHUB_EVENT_NAME"), getenv("GITHUB_EVENT_PATH")
	fail := func(err error) (*Event, error) {
		return nil, &Error{Op: "read the event", Source: fmt.Sprintf("%.100q", name), Kind: ErrEvent, Err: err}
	}
	if name == "" || file == "" {
		return fail(errors.New("GITHUB_EVENT_NAME or GITHUB_EVENT_PATH is not set, so this is no job of GitHub Actions: name the repository and the run instead"))
	}
	f, err := os.Open(file)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	e, err := ReadEvent(name, f)
	if err != nil {
		return nil, err
	}
	own := getenv("GITHUB_REPOSITORY")
	if e.Repository == "" {
		e.Repository = own
	}
	of := e.Repository
	if e.Run != nil {
		of = e.Run.Repository // a payload may name it here alone
	}
	if own != "" && !strings.EqualFold(of, own) {
		return fail(fmt.Errorf("it is of %.200q, but GITHUB_REPOSITORY is %.200q", of, own))
	}
	return e, nil
}
