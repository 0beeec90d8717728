package artifactstest

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
)

// A Run is a run of a workflow. Empty fields become those of a successful run of
// the branch main in example/project, started by a push.
type Run struct {
	ID                    int64
	Repository            string
	HeadRepository        string // "-" for a fork that was deleted
	HeadBranch, HeadSHA   string
	Event                 string
	Status, Conclusion    string // "-" for null
	WorkflowName, Path    string
	CreatedAt, UpdatedAt  time.Time
	RunStartedAt          time.Time
	RunAttempt, RunNumber int64
	HTMLURL               string
}

func (r Run) withDefaults() Run {
	for field, value := range map[*string]string{
		&r.Repository: "example/project", &r.HeadBranch: "main", &r.HeadSHA: "2f5e0000000000000000000000000000000000aa",
		&r.Event: "push", &r.Status: "completed", &r.Conclusion: "success",
		&r.WorkflowName: "docker-builds", &r.Path: ".github/workflows/docker-builds.yml",
	} {
		if *field == "" {
			*field = value
		}
	}
	if r.HeadRepository == "" {
		r.HeadRepository = r.Repository
	}
	if r.CreatedAt.IsZero() {
		r.CreatedAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	}
	if r.RunStartedAt.IsZero() {
		r.RunStartedAt = r.CreatedAt
	}
	if r.UpdatedAt.IsZero() {
		r.UpdatedAt = r.CreatedAt.Add(time.Hour)
	}
	r.RunAttempt, r.RunNumber = max(r.RunAttempt, 1), max(r.RunNumber, 1)
	if r.HTMLURL == "" {
		r.HTMLURL = "https://github.com/" + r.Repository + "/actions/runs/" + strconv.FormatInt(r.ID, 10)
	}
	return r
}

// object is the run in the form of the API.
func (r Run) object() map[string]any {
	nullable := func(s string) any {
		if s == "-" {
			return nil
		}
		return s
	}
	var head any
	if r.HeadRepository != "-" {
		head = map[string]any{"full_name": r.HeadRepository, "fork": r.HeadRepository != r.Repository}
	}
	return map[string]any{
		"id": r.ID, "name": r.WorkflowName, "path": r.Path, "event": r.Event, "status": r.Status, "conclusion": nullable(r.Conclusion),
		"head_branch": nullable(r.HeadBranch), "head_sha": r.HeadSHA, "repository": map[string]any{"full_name": r.Repository}, "head_repository": head,
		"created_at": r.CreatedAt, "updated_at": r.UpdatedAt, "run_started_at": r.RunStartedAt,
		"run_attempt": r.RunAttempt, "run_number": r.RunNumber, "html_url": r.HTMLURL,
	}
}

// WorkflowRunEvent returns the payload of the event workflow_run for a run that
// [Server.AddRun] returned.
func WorkflowRunEvent(r Run) []byte {
	return marshal(map[string]any{
		"action": "completed", "workflow_run": r.withDefaults().object(),
		"workflow":   map[string]any{"name": r.WorkflowName, "path": r.Path},
		"repository": map[string]any{"full_name": r.withDefaults().Repository, "default_branch": "main"},
	})
}

// DispatchEvent returns the payload of the event workflow_dispatch with the
// inputs branch and run_id.
func DispatchEvent(repository, branch, runID string) []byte {
	return marshal(map[string]any{
		"inputs": map[string]string{"branch": branch, "run_id": runID}, "ref": "refs/heads/main",
		"repository": map[string]any{"full_name": repository, "default_branch": "main"},
	})
}

// An Artifact is one that a run uploaded.
type Artifact struct {
	Name string
	// Files are zipped, in the order of their names, unless Raw is given.
	Files map[string]string
	// Raw, when not nil, is what the storage sends, such as a hostile zip.
	Raw []byte
	// ContentType is that of Raw, "-" for none. Default: application/zip.
	ContentType string
	// Disposition is the header Content-Disposition of Raw. Default: none.
	Disposition string
	// Expired artifacts are listed, and answered with 410.
	Expired bool
	// Digest is what the API states; "-" for none. Default: the right one.
	Digest string
	// Size is what the API states, in bytes, when not 0.
	Size int64
}

// Zip makes a zip of files, in the order of their names.
func Zip(files map[string]string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte(files[name]))
		}
		if err != nil {
			panic(err) // writing to a bytes.Buffer does not fail
		}
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

type stored struct {
	Artifact
	id, run int64
}

// object is the artifact in the form of the API.
func (a *stored) object() map[string]any {
	var digest any
	sum := sha256.Sum256(a.Raw)
	switch a.Digest {
	case "":
		digest = "sha256:" + hex.EncodeToString(sum[:])
	case "-":
	default:
		digest = a.Digest
	}
	size := a.Size
	if size == 0 {
		size = int64(len(a.Raw))
	}
	return map[string]any{
		"id": a.id, "name": a.Name, "size_in_bytes": size, "digest": digest, "expired": a.Expired,
		"created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z", "expires_at": "2026-01-16T03:04:05Z",
		"workflow_run": map[string]any{"id": a.run},
	}
}

func marshal(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // only maps, strings, numbers and times
	}
	return raw
}
