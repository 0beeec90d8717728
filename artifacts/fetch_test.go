package artifacts_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/artifacts/artifactstest"
)

const own = "308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image"

// addBuild adds what the build of an image uploads.
func addBuild(s *artifactstest.Server, run artifactstest.Run, name, reference string) {
	s.AddArtifact(run, artifactstest.Artifact{
		Name:  "docker-builds-artifacts-" + name,
		Files: map[string]string{"docker-builds-output-" + name + ".txt": name + "=" + reference + "\n"},
	})
}

// aBuild is a server with a good run of three images.
func aBuild(t *testing.T, r artifactstest.Run) (*artifactstest.Server, artifactstest.Run) {
	t.Helper()
	s := artifactstest.New(t)
	run := s.AddRun(r)
	for _, name := range []string{"noble", "jammy", "bench"} {
		addBuild(s, run, name, own+":"+name+"-2f5e")
	}
	s.AddArtifact(run, artifactstest.Artifact{Name: "test-logs", Files: map[string]string{"log.txt": "not an output"}})
	return s, run
}

func event(t *testing.T, run artifactstest.Run) *artifacts.Event {
	t.Helper()
	e, err := artifacts.ReadEvent("workflow_run", bytes.NewReader(artifactstest.WorkflowRunEvent(run)))
	require.NoError(t, err)
	return e
}

func allowOwn() artifacts.Gate { return artifacts.Gate{Owner: "example", Allow: []string{own}} }

func TestFetch(t *testing.T) {
	s, run := aBuild(t, artifactstest.Run{})
	b, err := newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{Event: event(t, run), Gate: allowOwn()})
	require.NoError(t, err)
	assert.Equal(t, run.ID, b.Run.ID)
	var names []string
	for _, o := range b.Outputs {
		names = append(names, o.Name)
		assert.Equal(t, own+":"+o.Name+"-2f5e", o.Reference)
		assert.Equal(t, "docker-builds-artifacts-"+o.Name, b.From(o).Name)
	}
	assert.Equal(t, []string{"bench", "jammy", "noble"}, names)
	assert.Len(t, b.Artifacts, 3)
	assert.Len(t, b.Files.Files, 3)
	assert.Len(t, s.Requests(), 1+2*3, "a run in an event is not asked for")
	assert.Zero(t, b.From(artifacts.Output{File: "other"}))

	b, err = newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{Event: event(t, run), Gate: allowOwn(), Names: []string{"noble", "bench"}})
	require.NoError(t, err)
	require.Len(t, b.Outputs, 2)
	assert.Equal(t, "noble", b.Outputs[0].Name)
	assert.Equal(t, "bench", b.Outputs[1].Name)
}

// A dispatch gives only an ID, so the run is asked for.
func TestFetchByDispatch(t *testing.T) {
	s, run := aBuild(t, artifactstest.Run{HeadBranch: "release/2.9"})
	for branch, kind := range map[string]error{"release/2.9": nil, "": nil, "main": artifacts.ErrRefused} {
		e, err := artifacts.ReadEvent("workflow_dispatch", bytes.NewReader(artifactstest.DispatchEvent(repo, branch, fmt.Sprint(run.ID))))
		require.NoError(t, err)
		b, err := newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{Event: e, Gate: allowOwn()})
		require.ErrorIs(t, err, kind, branch)
		if kind == nil {
			assert.Equal(t, "release/2.9", b.Run.HeadBranch)
			continue
		}
		assert.ErrorContains(t, err, `asked for is "main", the run is of "release/2.9"`)
	}
}

// What is given overrides the event; then the event's run and branch do not
// count.
func TestFetchOverrides(t *testing.T) {
	s, _ := aBuild(t, artifactstest.Run{})
	other := s.AddRun(artifactstest.Run{Repository: "example/other", HeadBranch: "dev"})
	s.AddArtifact(other, artifactstest.Artifact{Name: "images-x", Files: map[string]string{"x.txt": "x=" + own + ":x-1"}})
	failed := s.AddRun(artifactstest.Run{Conclusion: "failure"})
	b, err := newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{
		Event: event(t, failed), Repository: "example/other", RunID: other.ID, Pattern: "images-?", Gate: allowOwn(),
	})
	require.NoError(t, err)
	assert.Equal(t, own+":x-1", b.Outputs[0].Reference)
	e := &artifacts.Event{Name: "workflow_dispatch", Repository: "example/other", RunID: 1, Branch: "main"}
	_, err = newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{Event: e, RunID: other.ID, Pattern: "images-?", Gate: allowOwn()})
	require.NoError(t, err)
}

// The gate is asked about the run that is fetched, whatever run the event is
// about: also when only the ID, or only the repository, is another.
func TestFetchAsksTheGateAboutTheOverride(t *testing.T) {
	s, good := aBuild(t, artifactstest.Run{})
	failed := s.AddRun(artifactstest.Run{Conclusion: "failure"})
	_, err := newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{Event: event(t, good), RunID: failed.ID, Gate: allowOwn()})
	require.ErrorIs(t, err, artifacts.ErrRefused)
	assert.ErrorContains(t, err, fmt.Sprintf("trust run %d of", failed.ID))

	e := event(t, good)
	s.AddRun(artifactstest.Run{ID: good.ID, Repository: "example/other", Conclusion: "failure"})
	_, err = newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{Event: e, Repository: "example/other", Gate: allowOwn()})
	require.ErrorIs(t, err, artifacts.ErrRefused)
	assert.ErrorContains(t, err, `"example/other"`)
}

func TestFetchRefuses(t *testing.T) {
	for name, run := range map[string]artifactstest.Run{
		"failed":           {Conclusion: "failure"},
		"a fork's main":    {HeadRepository: "evil/project", Event: "push"},
		"pull request":     {HeadRepository: "evil/project", Event: "pull_request"},
		"of another owner": {Repository: "evil/project"},
	} {
		s, run := aBuild(t, run)
		for _, r := range []artifacts.Request{
			{Event: event(t, run), Gate: allowOwn()},
			{Repository: run.Repository, RunID: run.ID, Gate: allowOwn()},
		} {
			_, err := newClient(t, s, nil).Fetch(t.Context(), &r)
			require.ErrorIs(t, err, artifacts.ErrRefused, name)
		}
		assert.Len(t, s.Requests(), 1, "nothing is downloaded, and of the event's run not even asked for")
	}
}

func TestFetchErrors(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(s *artifactstest.Server, run artifactstest.Run)
		request artifacts.Request
		kind    error
		says    string
	}{
		"reference elsewhere": {func(s *artifactstest.Server, run artifactstest.Run) { addBuild(s, run, "evil", "ghcr.io/evil/x:t") }, artifacts.Request{}, artifacts.ErrRefused,
			`docker-builds-output-evil.txt:1 in artifact "docker-builds-artifacts-evil": output evil: trust the reference "ghcr.io/evil/x:t": refused`},
		"empty reference": {func(s *artifactstest.Server, run artifactstest.Run) { addBuild(s, run, "z", "") }, artifacts.Request{}, artifacts.ErrOutputs,
			`artifact "docker-builds-artifacts-z" of run`},
		"forged output": {func(s *artifactstest.Server, run artifactstest.Run) { addBuild(s, run, "z", "a\nx<<E\nE") }, artifacts.Request{}, artifacts.ErrOutputs, "want NAME=REFERENCE"},
		"no such name": {nil, artifacts.Request{Names: []string{"jammy", "focal"}}, artifacts.ErrNoArtifact,
			`output focal: the run has no artifact "docker-builds-artifacts-focal", which should have brought it`},
		"by the pattern": {nil, artifacts.Request{Names: []string{"focal"}, Pattern: "*-builds-artifacts-jammy"}, artifacts.ErrNoArtifact, `no artifact "focal-builds-artifacts-jammy"`},
		"without its line": {func(s *artifactstest.Server, run artifactstest.Run) {
			s.AddArtifact(run, artifactstest.Artifact{Name: "docker-builds-artifacts-focal", Files: map[string]string{"x.txt": "other=" + own + ":x"}})
		}, artifacts.Request{Names: []string{"focal"}}, artifacts.ErrNoArtifact, `artifact "docker-builds-artifacts-focal", which should have brought it, has no line focal=REFERENCE`},
		"wanted has expired": {func(s *artifactstest.Server, run artifactstest.Run) {
			s.AddArtifact(run, artifactstest.Artifact{Name: "docker-builds-artifacts-focal", Expired: true})
		}, artifacts.Request{Names: []string{"focal"}}, artifacts.ErrExpired, "kept until 2026-01-16"},
		"one has expired": {func(s *artifactstest.Server, run artifactstest.Run) {
			s.AddArtifact(run, artifactstest.Artifact{Name: "docker-builds-artifacts-focal", Expired: true})
		}, artifacts.Request{}, artifacts.ErrExpired, `artifact "docker-builds-artifacts-focal" was kept until`},
		"all have expired": {func(s *artifactstest.Server, run artifactstest.Run) {
			s.AddArtifact(run, artifactstest.Artifact{Name: "old-1", Expired: true})
		}, artifacts.Request{Pattern: "old-*"}, artifacts.ErrExpired, "all 1 artifacts"},
		"none": {nil, artifacts.Request{Pattern: "x-*"}, artifacts.ErrNoArtifact, `no artifact matches "x-*"`},
		"no outputs": {func(s *artifactstest.Server, run artifactstest.Run) {
			s.AddArtifact(run, artifactstest.Artifact{Name: "binaries", Files: map[string]string{"a.out": ""}})
		}, artifacts.Request{Pattern: "binaries"}, artifacts.ErrOutputs, "no *.txt file"},
		"conflict": {func(s *artifactstest.Server, run artifactstest.Run) {
			s.AddArtifact(run, artifactstest.Artifact{Name: "docker-builds-artifacts-zz", Files: map[string]string{"docker-builds-output-jammy.txt": "jammy=" + own + ":other"}})
		}, artifacts.Request{}, artifacts.ErrConflict, `is different in artifact "docker-builds-artifacts-jammy"`},
		"no artifact, a name": {nil, artifacts.Request{Pattern: "x-*", Names: []string{"jammy"}}, artifacts.ErrNoArtifact, `no artifact matches "x-*"; artifact "x-jammy" should have brought output jammy: check`},
		"an odd pattern":      {nil, artifacts.Request{Pattern: "x-?", Names: []string{"jammy"}}, artifacts.ErrNoArtifact, `artifact "docker-builds-artifacts-jammy" should have brought output jammy`},
		"nothing but an empty file": {func(s *artifactstest.Server, run artifactstest.Run) {
			s.AddArtifact(run, artifactstest.Artifact{Name: "images-focal", Files: map[string]string{"focal.txt": "\n"}})
		}, artifacts.Request{Pattern: "images-*", Names: []string{"focal"}}, artifacts.ErrNoArtifact, `artifact "images-focal", which should have brought it, has no line focal=REFERENCE`},
		"name twice": {nil, artifacts.Request{Names: []string{"jammy", "jammy"}}, artifacts.ErrRequest, "select the output"},
		"empty name": {nil, artifacts.Request{Names: []string{""}}, artifacts.ErrRequest, "select the output"},
		"bad allow":  {nil, artifacts.Request{Gate: artifacts.Gate{Allow: []string{"debian"}}}, artifacts.ErrRequest, "want HOST/REPOSITORY"},
		"no permission": {func(s *artifactstest.Server, _ artifactstest.Run) {
			s.SetQuirks(artifactstest.Quirks{NoPermission: true})
		}, artifacts.Request{}, artifacts.ErrNotFound, `"actions: read"`},
	} {
		t.Run(name, func(t *testing.T) {
			s, run := aBuild(t, artifactstest.Run{})
			if c.change != nil {
				c.change(s, run)
			}
			r := c.request
			r.Event = event(t, run)
			if r.Gate.Allow == nil {
				r.Gate = allowOwn()
			}
			b, err := newClient(t, s, nil).Fetch(t.Context(), &r)
			require.ErrorIs(t, err, c.kind)
			assert.ErrorContains(t, err, c.says)
			assert.Nil(t, b)
		})
	}
	s := artifactstest.New(t)
	_, err := newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{Event: &artifacts.Event{Name: "push", Repository: repo}})
	require.ErrorIs(t, err, artifacts.ErrEvent)
	_, err = newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{})
	require.ErrorIs(t, err, artifacts.ErrEvent)
	_, err = newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{RunID: 1})
	require.ErrorIs(t, err, artifacts.ErrRequest)
	assert.Empty(t, s.Requests())
}

// An expired artifact does not matter to who does not want it; the last wins if
// that is asked for; too much of all is refused before it is downloaded.
func TestFetchOptions(t *testing.T) {
	s, run := aBuild(t, artifactstest.Run{})
	s.AddArtifact(run, artifactstest.Artifact{Name: "docker-builds-artifacts-focal", Expired: true})
	s.AddArtifact(run, artifactstest.Artifact{Name: "docker-builds-artifacts-zz", Files: map[string]string{"docker-builds-output-jammy.txt": "jammy=" + own + ":new\n"}})
	r := artifacts.Request{Event: event(t, run), Gate: allowOwn(), Names: []string{"jammy"}, LastWins: true}
	b, err := newClient(t, s, nil).Fetch(t.Context(), &r)
	require.NoError(t, err)
	assert.Equal(t, own+":new", b.Outputs[0].Reference)
	assert.Equal(t, "docker-builds-artifacts-zz", b.From(b.Outputs[0]).Name)
	assert.Len(t, b.Expired, 1)

	before := len(s.Requests())
	_, err = newClient(t, s, func(o *artifacts.Options) { o.Limits.TotalBytes = 300 }).Fetch(t.Context(), &r)
	require.ErrorIs(t, err, artifacts.ErrLimit)
	assert.Len(t, s.Requests(), before+1)
	_, err = newClient(t, s, func(o *artifacts.Options) { o.Limits.Entries = 2 }).Fetch(t.Context(), &r)
	require.ErrorIs(t, err, artifacts.ErrLimit)
	assert.ErrorContains(t, err, "more than 2 files in all artifacts together")
}

// The waits for rate limits of all requests count together.
func TestFetchSharesItsPatience(t *testing.T) {
	s, run := aBuild(t, artifactstest.Run{})
	limited := map[string]bool{} // each path once
	var waited time.Duration
	client := newClient(t, s, func(o *artifacts.Options) {
		o.Wait = func(_ context.Context, d time.Duration) error { waited += d; return nil }
		o.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			if strings.HasPrefix(r.URL.Path, "/blob/") || limited[r.URL.Path] {
				return http.DefaultTransport.RoundTrip(r)
			}
			limited[r.URL.Path] = true
			w := httptest.NewRecorder()
			w.Header().Set("Retry-After", "250")
			w.WriteHeader(http.StatusTooManyRequests)
			return w.Result(), nil
		})
	})
	_, err := client.Fetch(t.Context(), &artifacts.Request{Event: event(t, run), Gate: allowOwn()})
	require.ErrorIs(t, err, artifacts.ErrRateLimited)
	assert.Equal(t, 500*time.Second, waited)
	assert.Len(t, limited, 3)
}
