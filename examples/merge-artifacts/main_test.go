package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts/artifactstest"
	"github.com/dockercache/dockercache/examples/internal/scripttest"
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
func runs(s *artifactstest.Server) *scripttest.Build {
	found := map[string]artifactstest.Run{}
	for name, r := range map[string]artifactstest.Run{
		"good": {}, "release": {HeadBranch: "release/2.9"}, "failed": {Conclusion: "failure"}, "fork": {Event: "pull_request", HeadRepository: "evil/project"},
		"empty": {}, "forged": {}, "conflict": {}, "hostile": {}, "expired": {}, "elsewhere": {}, "shouting": {}, "override": {}, "odd": {}, "kept": {}, "cased": {}, "evil": {Path: ".github/workflows/evil.yml"}, "tilde": {},
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
	build(s, found["kept"], "branch", "RUN-ID=x:y\n")
	build(s, found["cased"], "zz", "Jammy=x:y\n")
	s.AddArtifact(found["tilde"], artifactstest.Artifact{Name: "docker-builds-artifacts-zz", Files: map[string]string{"pkg_1.0~rc1_amd64.buildinfo": "x"}, ContentType: "-"})
	s.AddArtifact(found["odd"], artifactstest.Artifact{Name: "docker-builds-artifacts-##[error]x", Files: map[string]string{"odd.txt": "odd=x:y\n"}})
	return &scripttest.Build{API: s, Runs: found}
}

// The scripts run the program as a step of a job, against an API in this process.
func TestScripts(t *testing.T) {
	commands := scripttest.BuildCommands()
	commands["quirks"] = scripttest.Quirks[*artifactstest.Server](artifactstest.Quirks{Token: token})
	// outputs NAME=VALUE...: what the runner would find in $GITHUB_OUTPUT.
	commands["outputs"] = func(ts *testscript.TestScript, _ bool, args []string) {
		found, err := artifactstest.ParseOutputFile(ts.ReadFile("output"))
		ts.Check(err)
		var have []string
		for _, o := range found {
			have = append(have, o.Name+"="+o.Value)
		}
		if !slices.Equal(have, args) {
			ts.Fatalf("the outputs are %q, want %q", have, args)
		}
	}
	// untouched: neither the directory nor an output was written.
	commands["untouched"] = func(ts *testscript.TestScript, _ bool, _ []string) {
		if ts.ReadFile("output") != "before=1\n" {
			ts.Fatalf("outputs were written: %q", ts.ReadFile("output"))
		}
		if _, err := os.Stat(ts.MkAbs("dir")); !errors.Is(err, os.ErrNotExist) {
			ts.Fatalf("dir is there: %v", err)
		}
	}
	scripttest.Run(t, func(env *testscript.Env) error {
		s, err := artifactstest.Start()
		if err != nil {
			return err
		}
		env.Defer(s.Close)
		s.SetQuirks(artifactstest.Quirks{Token: token})
		runs(s).SetUp(env)
		env.Setenv("OWN", repository)
		env.Setenv("GITHUB_ACTIONS", "true")
		env.Setenv("GITHUB_REPOSITORY", "example/project")
		env.Setenv("GITHUB_OUTPUT", filepath.Join(env.WorkDir, "output"))
		env.Setenv("GITHUB_EVENT_PATH", filepath.Join(env.WorkDir, "event.json"))
		return os.WriteFile(filepath.Join(env.WorkDir, "output"), []byte("before=1\n"), 0o644)
	}, commands)
}

// A signal in the middle of a download: exit code 130, and nothing was written.
func TestSignals(t *testing.T) {
	for _, signal := range scripttest.Signals() {
		s := artifactstest.New(t)
		run := runs(s).Runs["good"]
		begun := make(chan struct{})
		s.SetQuirks(artifactstest.Quirks{Download: begun})
		work := t.TempDir()
		cmd := scripttest.Command(t, "merge-artifacts", "-dir", filepath.Join(work, "dir"), "-repo", "example/project", "-run-id", fmt.Sprint(run.ID))
		cmd.Env = append(append(cmd.Env, s.Env()...), "GITHUB_OUTPUT="+filepath.Join(work, "output"))
		scripttest.Interrupt(t, cmd, signal, begun)
		entries, err := os.ReadDir(work)
		require.NoError(t, err)
		assert.Empty(t, entries)
	}
}
