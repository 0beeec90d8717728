package artifacts

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Run is one run of a workflow, as the API and the event workflow_run
// describe it. Nothing in it was checked: that is what a [Gate] is for.
type Run struct {
	// ID identifies the run, over all its attempts.
	ID int64
	// Attempt counts from 1, Number counts the runs of the workflow.
	Attempt, Number int64
	// Name is the workflow's name, Path its file, such as
	// .github/workflows/docker-builds.yml.
	Name, Path string
	// Event is what started the run, such as "push" or "pull_request".
	Event string
	// Status is "completed" at the end, and only then has a Conclusion, such as
	// "success", "failure" or "cancelled".
	Status, Conclusion string
	// HeadBranch is the name of the branch or tag in HeadRepository: of a fork's
	// pull request the fork's name for it, which may be "main". HeadSHA is the
	// commit.
	HeadBranch, HeadSHA string
	// Repository is where the run is, as OWNER/NAME.
	Repository string
	// HeadRepository is where the commit came from; "" when that fork was
	// deleted.
	HeadRepository string
	// CreatedAt is when the run was created, StartedAt when this attempt began,
	// UpdatedAt when something last happened; zero if not stated.
	CreatedAt, StartedAt, UpdatedAt time.Time
	// HTMLURL is the run's web page.
	HTMLURL string
}

// Owner returns the first part of Repository.
func (r *Run) Owner() string {
	owner, _, _ := strings.Cut(r.Repository, "/")
	return owner
}

// wireRun is a run in the API's JSON. Any field may be null.
// https://docs.github.com/en/rest/actions/workflow-runs#get-a-workflow-run
type wireRun struct {
	ID             int64       `json:"id"`
	RunAttempt     int64       `json:"run_attempt"`
	RunNumber      int64       `json:"run_number"`
	Name           string      `json:"name"`
	Path           string      `json:"path"`
	Event          string      `json:"event"`
	Status         string      `json:"status"`
	Conclusion     string      `json:"conclusion"`
	HeadBranch     string      `json:"head_branch"`
	HeadSHA        string      `json:"head_sha"`
	Repository     wireRepo    `json:"repository"`
	HeadRepository wireRepo    `json:"head_repository"`
	CreatedAt      lenientTime `json:"created_at"`
	RunStartedAt   lenientTime `json:"run_started_at"`
	UpdatedAt      lenientTime `json:"updated_at"`
	HTMLURL        string      `json:"html_url"`
}

type wireRepo struct {
	FullName string `json:"full_name"`
}

// lenientTime is a time that may be missing or malformed: nothing depends on it.
type lenientTime struct{ time.Time }

func (t *lenientTime) UnmarshalJSON(raw []byte) error {
	if text, err := strconv.Unquote(string(raw)); err == nil {
		t.Time, _ = time.Parse(time.RFC3339, text)
	}
	return nil
}

func (w *wireRun) run() *Run {
	return &Run{
		ID: w.ID, Attempt: w.RunAttempt, Number: w.RunNumber, Name: w.Name, Path: w.Path,
		Event: w.Event, Status: w.Status, Conclusion: w.Conclusion, HeadBranch: w.HeadBranch, HeadSHA: w.HeadSHA,
		Repository: w.Repository.FullName, HeadRepository: w.HeadRepository.FullName,
		CreatedAt: w.CreatedAt.Time, StartedAt: w.RunStartedAt.Time, UpdatedAt: w.UpdatedAt.Time, HTMLURL: w.HTMLURL,
	}
}

// Run asks for a run of a repository, given as OWNER/NAME. The kinds of its
// errors are [ErrRequest], [ErrNotFound], [ErrDenied], [ErrRateLimited],
// [ErrUnreachable], [ErrAnswer], and [ErrOtherRepository] when the repository
// was renamed or the run belongs to another one.
func (c *Client) Run(ctx context.Context, repository string, runID int64) (*Run, error) {
	return c.newCall().run(ctx, repository, runID)
}

func (c *call) run(ctx context.Context, repository string, runID int64) (*Run, error) {
	if err := checkRun(repository, runID); err != nil {
		return nil, err
	}
	op := fmt.Sprintf("ask for run %d of", runID)
	var w wireRun
	if err := c.getJSON(ctx, op, repository, fmt.Sprintf("repos/%s/actions/runs/%d", repository, runID), nil, &w); err != nil {
		return nil, err
	}
	switch {
	case w.ID != runID:
		return nil, newError(ctx, op, repository, ErrAnswer, fmt.Errorf("the answer is about run %d", w.ID))
	case !strings.EqualFold(w.Repository.FullName, repository):
		return nil, newError(ctx, op, repository, ErrOtherRepository, fmt.Errorf("it is a run of %q", w.Repository.FullName))
	}
	return w.run(), nil
}

func checkRun(repository string, runID int64) error {
	if err := checkRepository(repository); err != nil {
		return err
	}
	if runID <= 0 {
		return &Error{Op: "use the run ID", Source: strconv.FormatInt(runID, 10), Kind: ErrRequest, Err: errors.New("want a positive number")}
	}
	return nil
}
