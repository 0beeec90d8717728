package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts/artifactstest"
)

// addRuns fills an API with build runs whose images are in a registry, and
// returns them by the names that the scripts have for them.
func addRuns(s *artifactstest.Server, host string) map[string]artifactstest.Run {
	add := func(run artifactstest.Run, artifact, file, content string) {
		s.AddArtifact(run, artifactstest.Artifact{Name: artifact, Files: map[string]string{file: content}})
	}
	image := func(tag string) string { return host + "/team/image:" + tag + "-1\n" }
	found := map[string]artifactstest.Run{}
	for name, r := range map[string]artifactstest.Run{
		"good": {RunAttempt: 2}, "release": {HeadBranch: "release/2.9"}, "nightly": {HeadBranch: "nightly"}, "failed": {Conclusion: "failure"},
		"request": {Event: "pull_request"}, "fork": {HeadRepository: "evil/project"}, "other": {Repository: "example/other"},
		"empty": {}, "elsewhere": {}, "hostile": {}, "conflict": {}, "override": {}, "partly": {},
	} {
		run := s.AddRun(r)
		found[name] = run
		for _, n := range []string{"jammy", "noble", "own"} {
			add(run, "docker-builds-artifacts-"+n, "docker-builds-output-"+n+".txt", n+"="+image(n))
		}
	}
	add(found["other"], "images-1", "images.txt", "own="+image("own"))
	add(found["empty"], "docker-builds-artifacts-focal", "docker-builds-output-focal.txt", "focal=\n")
	add(found["elsewhere"], "docker-builds-artifacts-focal", "docker-builds-output-focal.txt", "focal=ghcr.io/evil/image:focal-1\n")
	add(found["hostile"], "docker-builds-artifacts-zz", "../../evil.txt", "x=y:z\n")
	add(found["conflict"], "docker-builds-artifacts-zz", "docker-builds-output-jammy.txt", "jammy="+image("noble"))
	add(found["override"], "docker-builds-artifacts-zz", "zz.txt", "jammy="+image("own"))
	add(found["partly"], "docker-builds-artifacts-focal", "docker-builds-output-focal.txt", "focal="+image("focal"))
	return found
}

// setUpBuild gives a script an API with the runs of addRuns, of which it has the
// IDs in $RUN_NAME. The script is a job of Actions only once event or dispatch
// has made it one.
func setUpBuild(env *testscript.Env, host string) error {
	s, err := artifactstest.Start()
	if err != nil {
		return err
	}
	env.Defer(s.Close)
	runs := addRuns(s, host)
	env.Values["api"], env.Values["runs"] = s, runs
	env.Vars = append(env.Vars, s.Env()...)
	for name, run := range runs {
		env.Setenv("RUN_"+strings.ToUpper(name), fmt.Sprint(run.ID))
	}
	return nil
}

// begin makes the script a job of Actions that an event has started.
func begin(ts *testscript.TestScript, name string, payload []byte) {
	ts.Check(os.WriteFile(ts.MkAbs("event.json"), payload, 0o644))
	for key, value := range map[string]string{
		"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "example/project", "GITHUB_EVENT_NAME": name, "GITHUB_EVENT_PATH": ts.MkAbs("event.json"),
		"GITHUB_OUTPUT": ts.MkAbs("output"), "GITHUB_STEP_SUMMARY": ts.MkAbs("summary"),
	} {
		ts.Setenv(key, value)
	}
}

var buildCmds = scriptCommands{
	// event NAME: the event workflow_run of one of the runs.
	"event": func(ts *testscript.TestScript, _ bool, args []string) {
		begin(ts, "workflow_run", artifactstest.WorkflowRunEvent(ts.Value("runs").(map[string]artifactstest.Run)[args[0]]))
	},
	// dispatch NAME BRANCH: the event workflow_dispatch for one of the runs.
	"dispatch": func(ts *testscript.TestScript, _ bool, args []string) {
		run := ts.Value("runs").(map[string]artifactstest.Run)[args[0]]
		begin(ts, "workflow_dispatch", artifactstest.DispatchEvent("example/project", args[1], fmt.Sprint(run.ID)))
	},
	// api JSON: what the API does wrong from now on.
	"api": func(ts *testscript.TestScript, _ bool, args []string) {
		var q artifactstest.Quirks
		ts.Check(json.Unmarshal([]byte(args[0]), &q))
		ts.Value("api").(*artifactstest.Server).SetQuirks(q)
	},
	// commands NAME...: the commands that the runner would find in what the last
	// program printed.
	"commands": func(ts *testscript.TestScript, _ bool, args []string) {
		have := []string{}
		for line := range strings.SplitSeq(ts.ReadFile("stdout")+ts.ReadFile("stderr"), "\n") {
			if c, ok := artifactstest.ParseCommand(line); ok {
				have = append(have, c.Name)
			}
		}
		if fmt.Sprint(have) != fmt.Sprint(args) {
			ts.Fatalf("the commands are %q, want %q", have, args)
		}
	},
	// untouched: no tarball, nothing else in the directory, no output, no summary.
	"untouched": func(ts *testscript.TestScript, _ bool, _ []string) {
		left, err := os.ReadDir(ts.MkAbs("dir"))
		ts.Check(err)
		if len(left) > 0 {
			ts.Fatalf("dir holds %v", left)
		}
		for _, file := range []string{"output", "summary", "evil.txt", "../evil.txt", "../../evil.txt"} {
			if _, err := os.Stat(ts.MkAbs(file)); !errors.Is(err, os.ErrNotExist) {
				ts.Fatalf("%s is there: %v", file, err)
			}
		}
	},
}

// A signal while an artifact is downloaded: exit code 130, and nothing is there.
func TestSignalsDuringDownload(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		s := artifactstest.New(t)
		run := addRuns(s, "127.0.0.1:1")["good"]
		begun := make(chan struct{})
		s.SetQuirks(artifactstest.Quirks{Download: begun})
		work := t.TempDir()
		dir := filepath.Join(work, "dir")
		require.NoError(t, os.Mkdir(dir, 0o755))
		program, err := exec.LookPath("docker-cache") // testscript.Main put it on PATH
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // ends a test that would hang
		defer cancel()
		cmd := exec.CommandContext(ctx, program, "-dir", dir, "-allow", "127.0.0.1:1/team/image", "-repo", "example/project", "-run-id", fmt.Sprint(run.ID))
		cmd.Env = append(append(os.Environ(), s.Env()...), "GITHUB_STEP_SUMMARY="+filepath.Join(work, "summary"))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		require.NoError(t, cmd.Start())
		<-begun
		require.NoError(t, cmd.Process.Signal(signal))
		var exit *exec.ExitError
		require.ErrorAs(t, cmd.Wait(), &exit)
		assert.Equal(t, 130, exit.ExitCode())
		assert.Empty(t, stderr.String(), "who interrupts it knows why")
		assert.Empty(t, entries(t, dir))
		assert.NoFileExists(t, filepath.Join(work, "summary"))
	}
}
