package artifacts

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strconv"
	"time"
)

// An Artifact is one thing that a run uploaded, as the API describes it.
type Artifact struct {
	ID   int64
	Name string
	// Size is what is downloaded, in bytes.
	Size int64
	// Digest is "sha256:" and 64 hexadecimal digits, of what is downloaded; ""
	// for uploads by actions/upload-artifact before version 4.
	Digest string
	// Expired tells that it was deleted at the end of its retention: it is
	// still listed, but cannot be downloaded.
	Expired bool
	// CreatedAt and ExpiresAt are zero if not stated.
	CreatedAt, ExpiresAt time.Time
	// RunID is the run that it is of.
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

// perPage is the most that the API allows.
const perPage = 100

// List returns the artifacts of a run whose names match a pattern in the syntax
// of [path.Match], in the order of their names; "*" matches all. Expired ones
// are among them, with [Artifact.Expired] set.
//
// Each attempt of a run uploads its artifacts again, under the same names. Of
// several with the same name it returns the one with the highest ID, which is
// the newest.
//
// The kinds of its errors are those of [Client.Run], and [ErrLimit] for a run
// with more artifacts than [Limits.Artifacts].
func (c *Client) List(ctx context.Context, repository string, runID int64, pattern string) ([]Artifact, error) {
	return c.newCall().list(ctx, repository, runID, pattern)
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
	newest := map[string]Artifact{}
	for page, seen := 1, 0; ; page++ {
		var list struct {
			TotalCount int            `json:"total_count"`
			Artifacts  []wireArtifact `json:"artifacts"`
		}
		query := url.Values{"per_page": {strconv.Itoa(perPage)}, "page": {strconv.Itoa(page)}}
		if err := c.getJSON(ctx, op, repository, fmt.Sprintf("repos/%s/actions/runs/%d/artifacts", repository, runID), query, &list); err != nil {
			return nil, err
		}
		seen += len(list.Artifacts)
		if limit := c.options.Limits.Artifacts; max(list.TotalCount, seen) > limit {
			return fail(ErrLimit, "%d artifacts, the limit is %d", max(list.TotalCount, seen), limit)
		}
		for _, w := range list.Artifacts {
			if w.WorkflowRun != nil && w.WorkflowRun.ID != runID {
				return fail(ErrOtherRepository, "artifact %d is of run %d", w.ID, w.WorkflowRun.ID)
			}
			if match, _ := path.Match(pattern, w.Name); match && w.ID >= newest[w.Name].ID {
				newest[w.Name] = Artifact{
					ID: w.ID, Name: w.Name, Size: w.SizeInBytes, Digest: w.Digest, Expired: w.Expired,
					CreatedAt: w.CreatedAt.Time, ExpiresAt: w.ExpiresAt.Time, RunID: runID,
				}
			}
		}
		if seen >= list.TotalCount {
			break
		}
		if len(list.Artifacts) == 0 { // a part of the artifacts must not pass for all
			return fail(ErrAnswer, "it has %d artifacts, but the pages hold %d", list.TotalCount, seen)
		}
	}
	return slices.SortedFunc(maps.Values(newest), byNameAndID), nil
}

func checkPattern(pattern string) error {
	if _, err := path.Match(pattern, ""); err != nil {
		return &Error{Op: "use the pattern", Source: fmt.Sprintf("%.200q", pattern), Kind: ErrRequest, Err: err}
	}
	return nil
}

func byNameAndID(a, b Artifact) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
}
