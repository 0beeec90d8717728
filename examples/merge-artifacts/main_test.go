package main

import (
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

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"merge-artifacts": main})
}

const (
	repository = "308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image"
	token      = "ghs_TOP-SECRET-TOKEN"
)

// build adds what the build of one image uploads.
func build(s *artifactstest.Server, run artifactstest.Run, name, content string) {
	s.AddArtifact(run, artifactstest.Artifact{
		Name: "docker-builds-artifacts-" + name, Files: map[string]string{"docker-builds-output-" + name + ".txt": content},
	})
}

// runs fills a server with runs, by the names that the scripts have for them.
func runs(s *artifactstest.Server) map[string]artifactstest.Run {
	found := map[string]artifactstest.Run{}
	for name, r := range map[string]artifactstest.Run{
		"good": {}, "release": {HeadBranch: "release/2.9"}, "failed": {Conclusion: "failure"}, "fork": {Event: "pull_request", HeadRepository: "evil/project"},
		"empty": {}, "forged": {}, "conflict": {}, "hostile": {}, "expired": {}, "elsewhere": {}, "shouting": {}, "override": {}, "odd": {}, "kept": {},
	} {
		r.Repository = "example/project"
		run := s.AddRun(r)
		found[name] = run
		for _, image := range []string{"noble", "jammy"} {
			build(s, run, image, image+"="+repository+":"+image+"-2f5e\n")
		}
	}
	build(s, found["empty"], "focal", "focal=\n")
	build(s, found["forged"], "focal", "focal<<E\nx\nE\n::error::forged\n")
	s.AddArtifact(found["conflict"], artifactstest.Artifact{Name: "docker-builds-artifacts-zz", Files: map[string]string{"docker-builds-output-jammy.txt": "jammy=" + repository + ":other\n"}})
	s.AddArtifact(found["hostile"], artifactstest.Artifact{Name: "docker-builds-artifacts-zz", Files: map[string]string{"../evil.txt": "x=y:z"}})
	s.AddArtifact(found["expired"], artifactstest.Artifact{Name: "docker-builds-artifacts-zz", Expired: true})
	build(s, found["elsewhere"], "focal", "focal=ghcr.io/evil/x:focal-1\n")
	build(s, found["shouting"], "focal", "focal=x##[add-mask]y\n")
	build(s, found["override"], "zz", "jammy="+repository+":newer\n")
	build(s, found["kept"], "branch", "branch=x:y\n")
	s.AddArtifact(found["odd"], artifactstest.Artifact{Name: "docker-builds-artifacts-##[error]x", Files: map[string]string{"odd.txt": "odd=x:y\n"}})
	return found
}

// The scripts run the program as a step of a job, against an API in this process.
// event NAME makes the event workflow_run of one of the runs above.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			s, err := artifactstest.Start()
			if err != nil {
				return err
			}
			env.Defer(s.Close)
			s.SetQuirks(artifactstest.Quirks{Token: token})
			env.Vars = append(env.Vars, s.Env()...)
			all := runs(s)
			env.Values["server"], env.Values["runs"] = s, all
			for name, run := range all {
				env.Setenv("RUN_"+strings.ToUpper(name), fmt.Sprint(run.ID))
			}
			env.Setenv("OWN", repository)
			env.Setenv("GITHUB_ACTIONS", "true")
			env.Setenv("GITHUB_REPOSITORY", "example/project")
			env.Setenv("GITHUB_OUTPUT", filepath.Join(env.WorkDir, "output"))
			env.Setenv("GITHUB_EVENT_PATH", filepath.Join(env.WorkDir, "event.json"))
			return os.WriteFile(filepath.Join(env.WorkDir, "output"), []byte("before=1\n"), 0o644)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"event": func(ts *testscript.TestScript, _ bool, args []string) {
				run := ts.Value("runs").(map[string]artifactstest.Run)[args[0]]
				ts.Setenv("GITHUB_EVENT_NAME", "workflow_run")
				ts.Check(os.WriteFile(ts.MkAbs("event.json"), artifactstest.WorkflowRunEvent(run), 0o644))
			},
			// dispatch NAME BRANCH: the event workflow_dispatch for a run.
			"dispatch": func(ts *testscript.TestScript, _ bool, args []string) {
				run := ts.Value("runs").(map[string]artifactstest.Run)[args[0]]
				ts.Setenv("GITHUB_EVENT_NAME", "workflow_dispatch")
				ts.Check(os.WriteFile(ts.MkAbs("event.json"), artifactstest.DispatchEvent("example/project", args[1], fmt.Sprint(run.ID)), 0o644))
			},
			"quirks": func(ts *testscript.TestScript, _ bool, args []string) {
				q := artifactstest.Quirks{Token: token}
				ts.Check(json.Unmarshal([]byte(args[0]), &q))
				ts.Value("server").(*artifactstest.Server).SetQuirks(q)
			},
			// outputs NAME=VALUE...: what the runner would find in $GITHUB_OUTPUT.
			"outputs": func(ts *testscript.TestScript, _ bool, args []string) {
				found, err := artifactstest.ParseOutputFile(ts.ReadFile("output"))
				ts.Check(err)
				var have []string
				for _, o := range found {
					have = append(have, o.Name+"="+o.Value)
				}
				if fmt.Sprint(have) != fmt.Sprint(args) {
					ts.Fatalf("the outputs are %q, want %q", have, args)
				}
			},
			// commands NAME...: the commands that the runner would find in what the
			// last program printed.
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
			// untouched: neither the directory nor an output was written.
			"untouched": func(ts *testscript.TestScript, _ bool, _ []string) {
				if ts.ReadFile("output") != "before=1\n" {
					ts.Fatalf("outputs were written: %q", ts.ReadFile("output"))
				}
				if _, err := os.Stat(ts.MkAbs("dir")); !errors.Is(err, os.ErrNotExist) {
					ts.Fatalf("dir is there: %v", err)
				}
			},
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				code := 0
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					code = exit.ExitCode()
				}
				if fmt.Sprint(code) != args[0] {
					ts.Fatalf("exit code %d, want %s", code, args[0])
				}
			},
			"holds": func(ts *testscript.TestScript, _ bool, args []string) {
				entries, err := os.ReadDir(ts.MkAbs(args[0]))
				ts.Check(err)
				var have []string
				for _, e := range entries {
					have = append(have, e.Name())
				}
				if fmt.Sprint(have) != fmt.Sprint(args[1:]) {
					ts.Fatalf("%s holds %q, want %q", args[0], have, args[1:])
				}
			},
		},
	})
}

// The field names and their types are a contract.
func TestJSONFields(t *testing.T) {
	raw, err := json.Marshal(result{})
	require.NoError(t, err)
	assert.Equal(t, `{"name":"","reference":"","artifact":"","file":"","run_id":0,"branch":""}`, string(raw))
}

// A signal in the middle of a download: exit code 130, and nothing was written.
func TestSignals(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		s := artifactstest.New(t)
		run := runs(s)["good"]
		begun := make(chan struct{})
		s.SetQuirks(artifactstest.Quirks{Download: begun})
		work := t.TempDir()
		program, err := exec.LookPath("merge-artifacts") // testscript.Main put it on PATH
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // ends a test that would hang
		defer cancel()
		cmd := exec.CommandContext(ctx, program, "-dir", filepath.Join(work, "dir"), "-repo", "example/project", "-run-id", fmt.Sprint(run.ID))
		cmd.Env = append(append(os.Environ(), s.Env()...), "GITHUB_OUTPUT="+filepath.Join(work, "output"))
		require.NoError(t, cmd.Start())
		<-begun
		require.NoError(t, cmd.Process.Signal(signal))
		var exit *exec.ExitError
		require.ErrorAs(t, cmd.Wait(), &exit)
		assert.Equal(t, 130, exit.ExitCode())
		entries, err := os.ReadDir(work)
		require.NoError(t, err)
		assert.Empty(t, entries)
	}
}
