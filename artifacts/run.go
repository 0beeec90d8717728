package artifacts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Run is one run of a workflow, as the API and the event workflow_run
// describe it. Nothing in it was checked: a [Policy] does that.
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
	// HeadBranch is the name of the branch or tag in HeadRepository: for a fork's
	// pull request the fork's name, which may be "main". HeadSHA is the commit.
	HeadBranch, HeadSHA string
	// Repository is where the run is, as OWNER/NAME.
	Repository string
	// HeadRepository is where the commit is from; "" if that fork was deleted.
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

// lenientTime is a time that may be missing or malformed: it is for people only.
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

// An Artifact is one thing that a run uploaded, as the API describes it.
type Artifact struct {
	ID   int64
	Name string
	// Size is that of the download, in bytes.
	Size int64
	// Digest is that of the download, "sha256:" and 64 hexadecimal digits; "" for
	// uploads by actions/upload-artifact before version 4.
	Digest string
	// Expired reports whether the artifact was deleted at the end of its
	// retention: it is still listed, but cannot be downloaded.
	Expired bool
	// CreatedAt and ExpiresAt are zero if the API does not state them.
	CreatedAt, ExpiresAt time.Time
	// RunID is the run that uploaded it.
	RunID int64
}

// wireArtifact is an artifact in the API's JSON.
// https://docs.github.com/en/rest/actions/artifacts#list-workflow-run-artifacts
type wireArtifact struct {
	ID          int64       `json:"id"`
	Name        string      `json:"name"`
	SizeInBytes int64       `json:"size_in_bytes"`
	Digest      string      `json:"digest"`
	Expired     bool        `json:"expired"`
	CreatedAt   lenientTime `json:"created_at"`
	ExpiresAt   lenientTime `json:"expires_at"`
	WorkflowRun *struct {
		ID int64 `json:"id"`
	} `json:"workflow_run"`
}

// Run requests a run of a repository, given as OWNER/NAME. The kinds of its
// errors are [ErrRequest], [ErrNotFound], [ErrDenied], [ErrRateLimited],
// [ErrUnreachable], [ErrAnswer], and [ErrOtherRepository] when the repository
// was renamed or the run belongs to another one.
func (c *Client) Run(ctx context.Context, repository string, runID int64) (*Run, error) {
	call := c.newCall()
	run, err := call.run(ctx, repository, runID)
	return run, call.secrets.Error(err)
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
	if err := c.checkEcho(ctx, op, repository, w.Name, w.Path, w.Event, w.Status, w.Conclusion, w.HeadBranch, w.HeadSHA, w.HeadRepository.FullName, w.HTMLURL); err != nil {
		return nil, err
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

// perPage is the API's maximum.
const perPage = 100

// List returns the artifacts of a run whose names match a pattern in the syntax
// of [path.Match], sorted by name; "*" matches all. Expired ones are included.
//
// Each attempt of a run uploads its artifacts again under the same names. Of
// several with the same name List returns the one with the highest ID, which is
// the newest.
//
// The kinds of its errors are those of [Client.Run], and [ErrLimit] for a run
// with more artifacts than [Limits.Artifacts].
func (c *Client) List(ctx context.Context, repository string, runID int64, pattern string) ([]Artifact, error) {
	call := c.newCall()
	list, err := call.list(ctx, repository, runID, pattern)
	return list, call.secrets.Error(err)
}

func (c *call) list(ctx context.Context, repository string, runID int64, pattern string) ([]Artifact, error) {
	if err := checkRun(repository, runID); err != nil {
		return nil, err
	}
	if err := checkPattern(pattern); err != nil {
		return nil, err
	}
	op := fmt.Sprintf("list the artifacts of run %d of", runID)
	fail := func(kind error, format string, args ...any) ([]Artifact, error) {
		return nil, newError(ctx, op, repository, kind, fmt.Errorf(format, args...))
	}
	newest, seen := map[string]Artifact{}, map[int64]bool{}
	for page := 1; ; page++ {
		var list struct {
			TotalCount int            `json:"total_count"`
			Artifacts  []wireArtifact `json:"artifacts"`
		}
		query := url.Values{"per_page": {strconv.Itoa(perPage)}, "page": {strconv.Itoa(page)}}
		if err := c.getJSON(ctx, op, repository, fmt.Sprintf("repos/%s/actions/runs/%d/artifacts", repository, runID), query, &list); err != nil {
			return nil, err
		}
		if limit := c.options.Limits.Artifacts; list.TotalCount > limit {
			return fail(ErrLimit, "%d artifacts, the limit is %d", list.TotalCount, limit)
		}
		for _, w := range list.Artifacts {
			switch {
			case w.ID <= 0 || w.SizeInBytes < 0:
				return fail(ErrAnswer, "it has an artifact with the ID %d and %d bytes", w.ID, w.SizeInBytes)
			case seen[w.ID]: // pages that repeat would look complete
				return fail(ErrAnswer, "page %d repeats artifact %d: %s", page, w.ID, changed)
			}
			seen[w.ID] = true
			if w.WorkflowRun != nil && w.WorkflowRun.ID != runID {
				return fail(ErrOtherRepository, "artifact %d is of run %d", w.ID, w.WorkflowRun.ID)
			}
			if err := c.checkEcho(ctx, op, repository, w.Name, w.Digest); err != nil {
				return nil, err
			}
			if match, _ := path.Match(pattern, w.Name); match && w.ID >= newest[w.Name].ID {
				newest[w.Name] = Artifact{
					ID: w.ID, Name: w.Name, Size: w.SizeInBytes, Digest: w.Digest, Expired: w.Expired,
					CreatedAt: w.CreatedAt.Time, ExpiresAt: w.ExpiresAt.Time, RunID: runID,
				}
			}
		}
		switch {
		case len(seen) == list.TotalCount:
			return slices.SortedFunc(maps.Values(newest), byNameAndID), nil
		case len(seen) > list.TotalCount, len(list.Artifacts) == 0: // a part must not be taken for all
			return fail(ErrAnswer, "it has %d artifacts, but the pages hold %d: %s", list.TotalCount, len(seen), changed)
		case page >= pages(list.TotalCount):
			return fail(ErrAnswer, "it has %d artifacts, but %d pages of up to %d hold only %d", list.TotalCount, page, perPage, len(seen))
		}
	}
}

// changed is why a list may be inconsistent.
const changed = "if artifacts were uploaded meanwhile, try again"

// pages is how many pages a list of artifacts may have: a server may have a lower
// maximum, such as the API's default of 30 to a page.
func pages(artifacts int) int { return 10 + 4*artifacts/perPage }

func checkPattern(pattern string) error {
	if _, err := path.Match(pattern, ""); err != nil {
		return &Error{Op: "use the pattern", Source: fmt.Sprintf("%.200q", pattern), Kind: ErrRequest, Err: err}
	}
	return nil
}

func byNameAndID(a, b Artifact) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
}
