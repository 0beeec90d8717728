package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts/artifactstest"
	"github.com/dockercache/dockercache/examples/internal/scripttest"
)

// addRuns fills an API with build runs whose images are in a registry.
func addRuns(s *artifactstest.Server, host string) *scripttest.Build {
	add := func(run artifactstest.Run, artifact, file, content string) {
		s.AddArtifact(run, artifactstest.Artifact{Name: artifact, Files: map[string]string{file: content}})
	}
	image := func(tag string) string { return host + "/team/image:" + tag + "-1\n" }
	found := map[string]artifactstest.Run{}
	for name, r := range map[string]artifactstest.Run{
		"good": {RunAttempt: 2}, "release": {HeadBranch: "release/2.9"}, "nightly": {HeadBranch: "nightly"}, "failed": {Conclusion: "failure"},
		"request": {Event: "pull_request"}, "fork": {HeadRepository: "evil/project"}, "other": {Repository: "example/other"},
		"empty": {}, "elsewhere": {}, "hostile": {}, "conflict": {}, "override": {}, "partly": {}, "two": {},
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
	add(found["two"], "docker-builds-artifacts-debian", "docker-builds-output-debian.txt", "debian="+host+"/team/debian:bookworm-slim\n")
	return &scripttest.Build{API: s, Runs: found}
}

// untouched: no tarball, nothing else in the directory, no output, no summary.
func untouched(ts *testscript.TestScript, _ bool, _ []string) {
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
}

// A signal while an artifact is downloaded: exit code 130, and nothing is there.
func TestSignalsDuringDownload(t *testing.T) {
	for _, signal := range scripttest.Signals() {
		s := artifactstest.New(t)
		run := addRuns(s, "127.0.0.1:1").Runs["good"]
		begun := make(chan struct{})
		s.SetQuirks(artifactstest.Quirks{Download: begun})
		work := t.TempDir()
		dir := filepath.Join(work, "dir")
		require.NoError(t, os.Mkdir(dir, 0o755))
		cmd := scripttest.Command(t, "docker-cache", "-dir", dir, "-allow", "127.0.0.1:1/team/image", "-repo", "example/project", "-run-id", fmt.Sprint(run.ID))
		cmd.Env = append(append(cmd.Env, s.Env()...), "GITHUB_STEP_SUMMARY="+filepath.Join(work, "summary"))
		assert.Empty(t, scripttest.Interrupt(t, cmd, signal, begun), "the person who interrupts it knows why")
		assert.Empty(t, entries(t, dir))
		assert.NoFileExists(t, filepath.Join(work, "summary"))
	}
}

// The time for the run ends the download of artifacts too.
func TestTimeoutDuringDownload(t *testing.T) {
	s := artifactstest.New(t)
	run := addRuns(s, "127.0.0.1:1").Runs["good"]
	s.SetQuirks(artifactstest.Quirks{Download: make(chan struct{})}) // it never goes on
	dir := t.TempDir()
	cmd := scripttest.Command(t, "docker-cache", "-dir", dir, "-timeout", "3s", "-allow", "127.0.0.1:1/team/image", "-repo", "example/project", "-run-id", fmt.Sprint(run.ID))
	cmd.Env = append(cmd.Env, s.Env()...)
	_, err := cmd.Output()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, 1, exit.ExitCode())
	assert.Contains(t, string(exit.Stderr), "the time for the run is over (-timeout 3s)\n  What to do: run it again")
	assert.Empty(t, entries(t, dir))
}
