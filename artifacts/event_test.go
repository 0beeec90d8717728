package artifacts_test

import (
	"bytes"
	"fmt"
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
	// Other readers would take another run, or another repository.
	for says, change := range map[string]string{
		`"WORKFLOW_RUN": the name must be "workflow_run" exactly`:                `"WORKFLOW_RUN": {"id": 6}, "x": 0`,
		`"workflow_run" is there twice`:                                          `"workflow_run": {"id": 6}, "x": 0`,
		`"workflow_run" is there twice (`:                                        `"workflow\u005frun": {"id": 6}, "x": 0`,
		`"Action": the name must be "action"`:                                    `"Action": "requested"`,
		`"Repository": the name must be "repository"`:                            `"Repository": null`,
		`"workflow_run.HEAD_REPOSITORY": the name must be "head_repository"`:     `"workflow_run": {"id": 5, "head_repository": {}, "HEAD_REPOSITORY": {}}`,
		`"workflow_run.head_repository" is there twice`:                          `"workflow_run": {"id": 5, "head_repository": {}, "head_repository": {}}`,
		`"workflow_run.head_repository.Full_Name": the name must be "full_name"`: `"workflow_run": {"id": 5, "head_repository": {"full_name": "a/b", "Full_Name": "c/d"}}`,
		`"workflow_run.ID": the name must be "id"`:                               `"workflow_run": {"id": 5, "ID": 6}`,
		`it is of "example/project", but its run is of "evil/project"`:           `"workflow_run": {"id": 5, "repository": {"full_name": "evil/project"}}`,
		`it is of "example/project", but its run is of ""`:                       `"workflow_run": {"id": 5}`,
		`it is of "evil/project", but its run is of "example/project"`:           `"repository": {"full_name": "evil/project"}`,
	} {
		fields := map[string]string{
			"action": `"completed"`, "repository": `{"full_name": "example/project"}`,
			"workflow_run": `{"id": 5, "repository": {"full_name": "example/project"}, "head_repository": {"full_name": "example/project"}}`,
		}
		name, value, _ := strings.Cut(change, ": ")
		if name = strings.Trim(name, `"`); fields[name] != "" && !strings.Contains(change, `"x": 0`) {
			fields[name], change = value, `"x": 0`
		}
		raw := fmt.Sprintf(`{"action": %s, "repository": %s, "workflow_run": %s, %s}`, fields["action"], fields["repository"], fields["workflow_run"], change)
		_, err := artifacts.ReadEvent("workflow_run", strings.NewReader(raw))
		require.ErrorIs(t, err, artifacts.ErrEvent, raw)
		assert.ErrorContains(t, err, strings.TrimSuffix(says, " ("), raw)
	}
	_, err := artifacts.ReadEvent("workflow_dispatch", strings.NewReader(`{"inputs": {"run_id": "5", "RUN_ID": "6"}}`))
	require.ErrorContains(t, err, `"inputs.RUN_ID": the name must be "run_id"`)
	_, err = artifacts.ReadEvent("push", bytes.NewReader(bytes.Repeat([]byte(" "), 33<<20)))
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

	// The event is of the repository that this job is of.
	for payload, says := range map[string]string{
		`{"repository": {"full_name": "evil/project"}}`:                                                      `it is of "evil/project", but GITHUB_REPOSITORY is "example/project"`,
		`{"action": "completed", "workflow_run": {"id": 5, "repository": {"full_name": "evil/project"}}}`:    `it is of "evil/project", but`,
		`{"action": "completed", "workflow_run": {"id": 5, "repository": {"full_name": "Example/Project"}}}`: "",
		`{"repository": {"full_name": "Example/Project"}}`:                                                   "",
	} {
		env["GITHUB_EVENT_NAME"] = "workflow_run"
		if !strings.Contains(payload, "workflow_run") {
			env["GITHUB_EVENT_NAME"] = "push"
		}
		require.NoError(t, os.WriteFile(file, []byte(payload), 0o644))
		_, err = artifacts.EnvironmentEvent(getenv)
		if says == "" {
			require.NoError(t, err, payload)
			continue
		}
		require.ErrorIs(t, err, artifacts.ErrEvent, payload)
		assert.ErrorContains(t, err, says)
	}
	env["GITHUB_REPOSITORY"] = ""
	_, err = artifacts.EnvironmentEvent(getenv)
	require.NoError(t, err)
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
