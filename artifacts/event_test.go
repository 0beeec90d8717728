package artifacts_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/artifacts/artifactstest"
)

func TestReadEvent(t *testing.T) {
	run := artifactstest.Run{ID: 16543210987, HeadBranch: "release/2.9", Event: "schedule", RunAttempt: 2, HeadRepository: "-"}
	e, err := artifacts.ReadEvent("workflow_run", bytes.NewReader(artifactstest.WorkflowRunEvent(run)))
	require.NoError(t, err)
	assert.Equal(t, repo, e.Repository)
	assert.Equal(t, int64(16543210987), e.RunID)
	assert.Equal(t, "release/2.9", e.Run.HeadBranch)
	assert.Equal(t, "schedule", e.Run.Event)
	assert.Equal(t, int64(2), e.Run.Attempt)
	assert.Empty(t, e.Run.HeadRepository)
	assert.Equal(t, "success", e.Run.Conclusion)

	e, err = artifacts.ReadEvent("workflow_dispatch", bytes.NewReader(artifactstest.DispatchEvent(repo, "main", "42")))
	require.NoError(t, err)
	assert.Equal(t, &artifacts.Event{Name: "workflow_dispatch", Repository: repo, RunID: 42, Branch: "main"}, e)
	e, err = artifacts.ReadEvent("workflow_dispatch", strings.NewReader(`{"inputs": null}`))
	require.NoError(t, err)
	assert.Zero(t, e.RunID)
	e, err = artifacts.ReadEvent("push", strings.NewReader(`{"repository": {"full_name": "a/b"}, "inputs": {"run_id": "7"}, "workflow_run": {"id": 8}}`))
	require.NoError(t, err)
	assert.Equal(t, &artifacts.Event{Name: "push", Repository: "a/b"}, e)
}

func TestReadEventRefuses(t *testing.T) {
	for raw, says := range map[string]string{
		`{`: "JSON", ``: "JSON", `[]`: "array",
		`{"action": "completed"}`:                                  "no workflow_run",
		`{"action": "completed", "workflow_run": {"id": 0}}`:       "no workflow_run with an ID",
		`{"action": "requested", "workflow_run": {"id": 5}}`:       `"requested"`,
		`{"action": "completed", "workflow_run": {"id": "five"}}`:  "string",
		`{"action": "completed", "workflow_run": {"id": 1e30}}`:    "number",
		`{"action": "completed", "workflow_run": {"id": 5}} trail`: "after top-level",
	} {
		_, err := artifacts.ReadEvent("workflow_run", strings.NewReader(raw))
		require.ErrorIs(t, err, artifacts.ErrEvent, raw)
		assert.ErrorContains(t, err, says)
	}
	for _, id := range []string{"x", "-5", "0", "1.5", " 7", "99999999999999999999", "https://github.com/a/b/actions/runs/7"} {
		_, err := artifacts.ReadEvent("workflow_dispatch", bytes.NewReader(artifactstest.DispatchEvent(repo, "main", id)))
		require.ErrorIs(t, err, artifacts.ErrEvent, id)
		assert.ErrorContains(t, err, "run_id")
	}
	_, err := artifacts.ReadEvent("push", bytes.NewReader(bytes.Repeat([]byte(" "), 33<<20)))
	require.ErrorContains(t, err, "more than 33554432 bytes")
}

func TestEnvironmentEvent(t *testing.T) {
	env := map[string]string{}
	getenv := func(name string) string { return env[name] }
	_, err := artifacts.EnvironmentEvent(getenv)
	require.ErrorIs(t, err, artifacts.ErrEvent)
	assert.ErrorContains(t, err, "GITHUB_EVENT_PATH is not set")
	file := filepath.Join(t.TempDir(), "event.json")
	env = map[string]string{"GITHUB_EVENT_NAME": "schedule", "GITHUB_EVENT_PATH": file, "GITHUB_REPOSITORY": repo}
	_, err = artifacts.EnvironmentEvent(getenv)
	require.ErrorIs(t, err, artifacts.ErrEvent)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(file, []byte(`{"schedule": "0 5 * * *"}`), 0o644))
	e, err := artifacts.EnvironmentEvent(getenv)
	require.NoError(t, err)
	assert.Equal(t, &artifacts.Event{Name: "schedule", Repository: repo}, e)
}

func FuzzReadEvent(f *testing.F) {
	f.Add("workflow_run", artifactstest.WorkflowRunEvent(artifactstest.Run{ID: 5}))
	f.Add("workflow_dispatch", artifactstest.DispatchEvent(repo, "main", "5"))
	f.Add("workflow_run", []byte(`{"action":"completed","workflow_run":{"id":5,"created_at":7,"head_repository":null}}`))
	f.Fuzz(func(t *testing.T, name string, raw []byte) {
		e, err := artifacts.ReadEvent(name, bytes.NewReader(raw))
		if err != nil {
			require.ErrorIs(t, err, artifacts.ErrEvent)
			require.NotContains(t, err.Error(), "\n")
			return
		}
		require.GreaterOrEqual(t, e.RunID, int64(0))
		if e.Run != nil {
			require.Equal(t, e.RunID, e.Run.ID)
			_ = (&artifacts.Policy{Owner: "x", Branches: []string{"main"}}).Check(e.Run)
		}
	})
}
