package endtoend

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/dockercache/dockercache/artifacts/artifactstest"
)

// A workflow is as much of one as the test runs.
type workflow struct {
	On struct {
		WorkflowRun struct {
			Workflows, Branches, Types []string
		} `yaml:"workflow_run"`
		WorkflowDispatch struct {
			Inputs map[string]struct{ Required bool }
		} `yaml:"workflow_dispatch"`
	}
	Concurrency struct {
		Group            string
		CancelInProgress bool `yaml:"cancel-in-progress"`
	}
	Permissions *map[string]string
	Env         map[string]string
	Jobs        map[string]struct {
		If, Needs   string
		Permissions map[string]string
		Outputs     map[string]string
		Strategy    struct {
			FailFast string `yaml:"fail-fast"`
			Matrix   map[string][]string
		}
		Steps []step
	}
}

type step struct {
	Name, ID, Run, Uses string
	Env, With           map[string]string
}

func readWorkflow(t *testing.T) (w workflow) {
	t.Helper()
	raw, err := os.ReadFile("../../examples/docker-cache/docker-cache-rocm.yml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(raw, &w))
	return w
}

// A job is one that the test is the runner of.
type job struct {
	*world
	workflow workflow
	temp     string
	values   map[string]string // of expressions
}

func (w *world) job(workflow workflow, values map[string]string) *job {
	temp, err := os.MkdirTemp(w.temp, "")
	require.NoError(w.t, err)
	j := &job{w, workflow, temp, map[string]string{"github.token": jobToken}}
	maps.Copy(j.values, values)
	return j
}

var expressions = regexp.MustCompile(`\$\{\{\s*(.+?)\s*\}\}`)

// evaluate puts values in place of expressions. One that the test does not know
// fails it.
func (j *job) evaluate(text string) string {
	return expressions.ReplaceAllStringFunc(text, func(e string) string {
		name := expressions.FindStringSubmatch(e)[1]
		value, ok := j.values[name]
		require.True(j.t, ok, "no value for %s", e)
		return value
	})
}

// runSteps runs the commands of a job as the runner does, each with a file for
// its outputs, and returns what they printed. What a step's outputs are becomes
// the value of steps.ID.outputs.NAME.
func (j *job) runSteps(name string) (finished, error) {
	j.t.Helper()
	var f finished
	for _, s := range j.workflow.Jobs[name].Steps {
		if s.Run == "" {
			require.Regexp(j.t, `^[\w/-]+@[0-9a-f]{40}$`, s.Uses, "pinned")
			continue
		}
		require.NotContains(j.t, s.Run, "${{", "values go through the environment, never into the script")
		outputs := filepath.Join(j.temp, "outputs")
		cmd := exec.CommandContext(j.t.Context(), "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", s.Run)
		cmd.Dir = "../.."
		cmd.Env = append(slices.Clone(j.env), "RUNNER_TEMP="+j.temp, "GITHUB_OUTPUT="+outputs, "GITHUB_STEP_SUMMARY="+filepath.Join(j.temp, "summary"))
		for _, env := range []map[string]string{j.workflow.Env, s.Env} {
			for key, value := range env {
				cmd.Env = append(cmd.Env, key+"="+j.evaluate(value))
			}
		}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		f.stdout += stdout.String()
		f.stderr += stderr.String()
		if err != nil {
			f.code = cmd.ProcessState.ExitCode()
			return f, err
		}
		content, err := os.ReadFile(outputs)
		if os.IsNotExist(err) {
			continue
		}
		require.NoError(j.t, err)
		found, err := artifactstest.ParseOutputFile(string(content))
		require.NoError(j.t, err)
		for _, o := range found {
			j.values["steps."+s.ID+".outputs."+o.Name] = o.Value
		}
	}
	return f, nil
}

// builtBy adds a build run that has uploaded what docker-builds does, and makes
// it the event.
func (w *world) builtBy(run artifactstest.Run) artifactstest.Run {
	w.t.Helper()
	run.Repository = "pytorch/pytorch"
	run = w.api.AddRun(run)
	for _, name := range names {
		w.api.AddArtifact(run, artifactstest.Artifact{
			Name:  "docker-builds-artifacts-" + name,
			Files: map[string]string{"docker-builds-output-" + name + ".txt": name + "=" + ecrImage + ":" + name + hash + "\n"},
		})
	}
	w.event("workflow_run", artifactstest.WorkflowRunEvent(run))
	return run
}

func (w *world) event(name string, payload []byte) {
	path := filepath.Join(w.t.TempDir(), "event.json")
	require.NoError(w.t, os.WriteFile(path, payload, 0o600))
	w.env = append(w.env, "GITHUB_EVENT_NAME="+name, "GITHUB_EVENT_PATH="+path)
}

// sums returns the digests of what is in the directory of a job, by name.
func (w *world) sums() map[string]string {
	w.t.Helper()
	found := map[string]string{}
	entries, err := os.ReadDir(w.tarballs())
	require.NoError(w.t, err)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".verified") || strings.HasPrefix(e.Name(), ".history.") { // they have times
			continue
		}
		content, err := os.ReadFile(filepath.Join(w.tarballs(), e.Name()))
		require.NoError(w.t, err)
		found[e.Name()] = fmt.Sprintf("%x", sha256.Sum256(content))
	}
	return found
}

// tarballs is where the workflow puts them.
func (w *world) tarballs() string { return filepath.Join(w.home, "pytorch-data", "docker") }

// requireLoadable verifies the three tarballs by what another library reads.
func (w *world) requireLoadable() {
	w.t.Helper()
	for _, image := range names {
		tag, err := name.NewTag(ecrImage + ":" + image + hash)
		require.NoError(w.t, err)
		loaded, err := tarball.ImageFromPath(filepath.Join(w.tarballs(), image+"_main.tar"), &tag)
		require.NoError(w.t, err)
		require.NoError(w.t, validate.Image(loaded))
		want, err := w.images[image].ConfigName()
		require.NoError(w.t, err)
		got, err := loaded.ConfigName()
		require.NoError(w.t, err)
		assert.Equal(w.t, want, got)
	}
}

// The workflow's commands, as the file has them, from the event to the tarballs:
// as one job, and as a download with a matrix. Both leave the same bytes.
func TestWorkflow(t *testing.T) {
	workflow := readWorkflow(t)
	one := newWorld(t)
	run := one.builtBy(artifactstest.Run{RunAttempt: 2})
	j := one.job(workflow, nil)
	f, err := j.runSteps("docker-cache")
	require.NoError(t, err, f.stderr)
	one.requireLoadable()
	one.requireNoSecret(f)
	summary, err := os.ReadFile(filepath.Join(j.temp, "summary"))
	require.NoError(t, err)
	assert.Equal(t, 3, strings.Count(string(summary), "✅ stocked"))
	assert.Contains(t, string(summary), "gantt")
	assert.Contains(t, f.stderr, "::notice title=docker-cache::3 images: 3 stocked, 0 unchanged, 0 superseded, 0 failed\n")
	assert.Contains(t, f.stderr, fmt.Sprintf("::group::Build run %d of pytorch/pytorch, branch main\n", run.ID))

	many := newWorldWith(t, 0)
	require.Equal(t, run.ID, many.builtBy(artifactstest.Run{ID: run.ID, RunAttempt: 2}).ID)
	download := many.job(workflow, nil)
	f, err = download.runSteps("download")
	require.NoError(t, err, f.stderr)
	many.requireNoSecret(f)
	needs := map[string]string{}
	for output, expression := range workflow.Jobs["download"].Outputs {
		needs["needs.download.outputs."+output] = download.evaluate(expression)
	}
	require.ElementsMatch(t, names, workflow.Jobs["stock"].Strategy.Matrix["name"])
	for _, name := range workflow.Jobs["stock"].Strategy.Matrix["name"] {
		stock := many.job(workflow, needs)
		stock.values["needs.download.outputs[matrix.name]"] = needs["needs.download.outputs."+name]
		f, err := stock.runSteps("stock")
		require.NoError(t, err, f.stderr)
		many.requireNoSecret(f)
	}
	many.requireLoadable()
	assert.Equal(t, one.sums(), many.sums())
	assert.Len(t, one.sums(), 3)
}

// By hand, for a release branch.
func TestWorkflowDispatch(t *testing.T) {
	w := newWorld(t)
	run := w.builtBy(artifactstest.Run{HeadBranch: "release/2.9"})
	w.event("workflow_dispatch", artifactstest.DispatchEvent("pytorch/pytorch", "release/2.9", fmt.Sprint(run.ID)))
	f, err := w.job(readWorkflow(t), nil).runSteps("docker-cache")
	require.NoError(t, err, f.stderr)
	var want []string
	for _, name := range names {
		want = append(want, name+"_release.tar")
	}
	assert.ElementsMatch(t, want, slices.Collect(maps.Keys(w.sums())))
}

// Runs that must not be trusted leave nothing, in either shape.
func TestWorkflowRefuses(t *testing.T) {
	workflow := readWorkflow(t)
	for what, c := range map[string]struct {
		run  artifactstest.Run
		says string
	}{
		"a fork's main":    {artifactstest.Run{Event: "pull_request", HeadRepository: "evil/pytorch"}, "by the rule for the event"},
		"failed":           {artifactstest.Run{Conclusion: "failure"}, "by the rule for the conclusion"},
		"another branch":   {artifactstest.Run{HeadBranch: "nightly"}, "by the rule for the branch"},
		"another workflow": {artifactstest.Run{WorkflowName: "other", Path: ".github/workflows/other.yml"}, "by the rule for the workflow"},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.builtBy(c.run)
			for _, name := range []string{"docker-cache", "download"} {
				j := w.job(workflow, nil)
				f, err := j.runSteps(name)
				require.Error(t, err)
				assert.Equal(t, 1, f.code)
				assert.Contains(t, f.stderr, c.says)
				assert.Contains(t, f.stderr, "::error title=")
				assert.NoFileExists(t, filepath.Join(j.temp, "outputs"))
				assert.NoDirExists(t, filepath.Join(j.temp, "docker-builds-artifacts"))
			}
			entries, err := os.ReadDir(w.tarballs())
			if err == nil {
				assert.Empty(t, entries)
			}
		})
	}
}

// A reference of a repository that is not allowed, and a name that the build did
// not bring: nothing is stocked.
func TestWorkflowReferences(t *testing.T) {
	for what, c := range map[string]struct{ name, content, says string }{
		"elsewhere": {names[0], names[0] + "=ghcr.io/evil/image:x-1\n", "by the rule for"},
		"empty":     {names[0], names[0] + "=\n", "the reference is empty: did the build fail?"},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			run := w.builtBy(artifactstest.Run{})
			w.api.AddArtifact(run, artifactstest.Artifact{ // uploaded again by a second attempt
				Name: "docker-builds-artifacts-" + c.name, Files: map[string]string{"docker-builds-output-" + c.name + ".txt": c.content},
			})
			f, err := w.job(readWorkflow(t), nil).runSteps("docker-cache")
			require.Error(t, err)
			assert.Contains(t, f.stderr, c.says)
			assert.Contains(t, f.stderr, "docker-builds-artifacts-"+c.name)
			assert.Empty(t, w.sums())
			w.requireNoSecret(f)
		})
	}
}
