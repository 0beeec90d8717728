package endtoend

import (
	"maps"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// evaluated is a text with its expressions evaluated.
func evaluated(t *testing.T, text string, values map[string]string) string {
	t.Helper()
	return expressions.ReplaceAllStringFunc(text, func(e string) string {
		value, err := evaluate(expressions.FindStringSubmatch(e)[1], values)
		require.NoError(t, err, e)
		return value
	})
}

// The values of a good run of main, with some of them changed.
func contexts(changes ...string) map[string]string {
	values := map[string]string{
		"github.workflow": "docker-cache-rocm", "github.run_id": "77", "github.repository": "pytorch/pytorch", "github.repository_owner": "pytorch",
		"github.event_name": "workflow_run", "github.event.workflow_run.conclusion": "success", "github.event.workflow_run.event": "push",
		"github.event.workflow_run.head_branch": "main", "github.event.workflow_run.head_repository.full_name": "pytorch/pytorch",
	}
	for i := 0; i < len(changes); i += 2 {
		values[changes[i]] = changes[i+1]
	}
	return values
}

// dispatched are the values of a run by hand.
func dispatched(branch string) map[string]string {
	values := contexts("github.event_name", "workflow_dispatch", "inputs.branch", branch)
	maps.DeleteFunc(values, func(name, _ string) bool { return strings.HasPrefix(name, "github.event.") })
	return values
}

// Which runs start the workflow: main and every release branch, once they end,
// and by hand with both inputs.
func TestWorkflowTriggers(t *testing.T) {
	w := readWorkflow(t)
	assert.Equal(t, []string{"docker-builds"}, w.On.WorkflowRun.Workflows)
	assert.Equal(t, []string{"completed"}, w.On.WorkflowRun.Types)
	reaches := func(branch string) bool {
		for _, pattern := range w.On.WorkflowRun.Branches {
			glob := strings.NewReplacer(`\*\*`, ".*", `\*`, "[^/]*").Replace(regexp.QuoteMeta(pattern))
			if regexp.MustCompile("^" + glob + "$").MatchString(branch) {
				return true
			}
		}
		return false
	}
	for branch, want := range map[string]bool{"main": true, "release/2.9": true, "release/2.9/x": true, "mainly": false, "x/release/2.9": false, "nightly": false} {
		assert.Equal(t, want, reaches(branch), branch)
	}
	require.Len(t, w.On.WorkflowDispatch.Inputs, 2)
	for _, name := range []string{"run_id", "branch"} {
		assert.True(t, w.On.WorkflowDispatch.Inputs[name].Required, name)
	}
}

// One run for each branch: a newer one cancels an older one, also across the two
// events. What the program would refuse cancels nothing.
func TestWorkflowConcurrency(t *testing.T) {
	w := readWorkflow(t)
	assert.True(t, w.Concurrency.CancelInProgress)
	for want, all := range map[string][]map[string]string{
		"docker-cache-rocm-main": {
			contexts(), contexts("github.event.workflow_run.event", "schedule"), contexts("github.run_id", "78"), dispatched("main"),
		},
		"docker-cache-rocm-release/2.9": {contexts("github.event.workflow_run.head_branch", "release/2.9"), dispatched("release/2.9")},
		"docker-cache-rocm-77": { // by itself
			contexts("github.event.workflow_run.head_repository.full_name", "evil/pytorch"),
			contexts("github.event.workflow_run.head_repository.full_name", ""), // of a deleted fork
			contexts("github.event.workflow_run.event", "pull_request"),
			contexts("github.event.workflow_run.conclusion", "failure"),
			contexts("github.event.workflow_run.conclusion", "cancelled"),
		},
	} {
		for _, values := range all {
			assert.Equal(t, want, evaluated(t, w.Concurrency.Group, values), "%v", values)
		}
	}
}

// One of the two shapes, of the right repository, for a run that may be good.
func TestWorkflowGuards(t *testing.T) {
	w := readWorkflow(t)
	for _, c := range []struct {
		values   map[string]string
		one, two bool
	}{
		{contexts(), true, false},
		{contexts("vars.DOCKER_CACHE_SHAPE", "matrix"), false, true},
		{dispatched("main"), true, false},
		{contexts("github.repository_owner", "somebody"), false, false},
		{contexts("github.repository_owner", "somebody", "vars.DOCKER_CACHE_SHAPE", "matrix"), false, false},
		{contexts("github.event.workflow_run.conclusion", "failure"), false, false},
		{contexts("github.event.workflow_run.conclusion", "failure", "vars.DOCKER_CACHE_SHAPE", "matrix"), false, false},
	} {
		for job, want := range map[string]bool{"docker-cache": c.one, "download": c.two} {
			got, err := evaluate(w.Jobs[job].If, c.values)
			require.NoError(t, err)
			assert.Equal(t, want, isTrue(got), "%s %v", job, c.values)
		}
	}
	assert.Empty(t, w.Jobs["stock"].If)
	assert.Equal(t, "download", w.Jobs["stock"].Needs, "which is skipped with it")
}

// Each job has what it needs and no more.
func TestWorkflowPermissions(t *testing.T) {
	w := readWorkflow(t)
	require.NotNil(t, w.Permissions)
	assert.Empty(t, *w.Permissions)
	want := map[string]map[string]string{
		"docker-cache": {"actions": "read", "contents": "read", "id-token": "write", "packages": "read"},
		"download":     {"actions": "read", "contents": "read"},
		"stock":        {"contents": "read", "id-token": "write", "packages": "read"},
	}
	require.Len(t, w.Jobs, len(want))
	for name, job := range w.Jobs {
		assert.Equal(t, want[name], job.Permissions, name)
		for _, s := range job.Steps {
			if s.Uses == "" {
				continue
			}
			assert.Regexp(t, `^actions/[\w-]+@[0-9a-f]{40}$`, s.Uses, "pinned")
			if strings.HasPrefix(s.Uses, "actions/checkout@") {
				assert.Equal(t, "false", s.With["persist-credentials"])
			}
		}
		if name != "download" {
			assert.Equal(t, "false", job.Strategy.FailFast, "one failing stops no other")
		}
	}
}
