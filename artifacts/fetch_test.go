package artifacts_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

func allowOwn() artifacts.Policy { return artifacts.Policy{Owner: "example", Allow: []string{own}} }

func TestFetch(t *testing.T) {
	s, run := aBuild(t, artifactstest.Run{})
	b, err := newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{Event: event(t, run), Policy: allowOwn()})
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

	b, err = newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{Event: event(t, run), Policy: allowOwn(), Names: []string{"noble", "bench"}})
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
		b, err := newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{Event: e, Policy: allowOwn()})
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
		Event: event(t, failed), Repository: "example/other", RunID: other.ID, Pattern: "images-?", Policy: allowOwn(),
	})
	require.NoError(t, err)
	assert.Equal(t, own+":x-1", b.Outputs[0].Reference)
	e := &artifacts.Event{Name: "workflow_dispatch", Repository: "example/other", RunID: 1, Branch: "main"}
	_, err = newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{Event: e, RunID: other.ID, Pattern: "images-?", Policy: allowOwn()})
	require.NoError(t, err)
}

// The policy is asked about the run that is fetched, whatever run the event is
// about: also when only the ID, or only the repository, is another.
func TestFetchChecksThePolicyOfTheOverride(t *testing.T) {
	s, good := aBuild(t, artifactstest.Run{})
	failed := s.AddRun(artifactstest.Run{Conclusion: "failure"})
	_, err := newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{Event: event(t, good), RunID: failed.ID, Policy: allowOwn()})
	require.ErrorIs(t, err, artifacts.ErrRefused)
	assert.ErrorContains(t, err, fmt.Sprintf("trust run %d of", failed.ID))

	e := event(t, good)
	s.AddRun(artifactstest.Run{ID: good.ID, Repository: "example/other", Conclusion: "failure"})
	_, err = newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{Event: e, Repository: "example/other", Policy: allowOwn()})
	require.ErrorIs(t, err, artifacts.ErrRefused)
	assert.ErrorContains(t, err, `asked for is "example/other", the event's run is of "example/project"`)

	// Also where the API has a good run of that ID, or the event says so by hand.
	s.AddRun(artifactstest.Run{ID: good.ID, Repository: "example/other"})
	for _, r := range []artifacts.Request{{Event: e, Repository: "example/other"}, {Event: e, Repository: "example/other", RunID: good.ID}, {Event: &artifacts.Event{Repository: "example/other", RunID: good.ID, Run: e.Run}}} {
		r.Policy = allowOwn()
		_, err = newClient(t, s, nil).Fetch(t.Context(), &r)
		require.ErrorIs(t, err, artifacts.ErrRefused)
		assert.ErrorContains(t, err, `the event's run is of "example/project"`)
	}
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
			{Event: event(t, run), Policy: allowOwn()},
			{Repository: run.Repository, RunID: run.ID, Policy: allowOwn()},
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
			`output focal: the run has no artifact "docker-builds-artifacts-focal", where it was expected`},
		"by the pattern": {nil, artifacts.Request{Names: []string{"focal"}, Pattern: "*-builds-artifacts-jammy"}, artifacts.ErrNoArtifact, `no artifact "focal-builds-artifacts-jammy"`},
		"without its line": {func(s *artifactstest.Server, run artifactstest.Run) {
			s.AddArtifact(run, artifactstest.Artifact{Name: "docker-builds-artifacts-focal", Files: map[string]string{"x.txt": "other=" + own + ":x"}})
		}, artifacts.Request{Names: []string{"focal"}}, artifacts.ErrNoArtifact, `output focal: artifact "docker-builds-artifacts-focal" does not contain it`},
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
		"no artifact, a name": {nil, artifacts.Request{Pattern: "x-*", Names: []string{"jammy"}}, artifacts.ErrNoArtifact, `no artifact matches "x-*"; output jammy was expected in artifact "x-jammy": check`},
		"an odd pattern":      {nil, artifacts.Request{Pattern: "x-?", Names: []string{"jammy"}}, artifacts.ErrNoArtifact, `output jammy was expected in artifact "docker-builds-artifacts-jammy"`},
		"nothing but an empty file": {func(s *artifactstest.Server, run artifactstest.Run) {
			s.AddArtifact(run, artifactstest.Artifact{Name: "images-focal", Files: map[string]string{"focal.txt": "\n"}})
		}, artifacts.Request{Pattern: "images-*", Names: []string{"focal"}}, artifacts.ErrNoArtifact, `output focal: artifact "images-focal" does not contain it`},
		"name twice": {nil, artifacts.Request{Names: []string{"jammy", "jammy"}}, artifacts.ErrRequest, "select the output"},
		"empty name": {nil, artifacts.Request{Names: []string{""}}, artifacts.ErrRequest, "select the output"},
		"bad allow":  {nil, artifacts.Request{Policy: artifacts.Policy{Allow: []string{"debian"}}}, artifacts.ErrRequest, "want HOST/REPOSITORY"},
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
			if r.Policy.Allow == nil {
				r.Policy = allowOwn()
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
	r := artifacts.Request{Event: event(t, run), Policy: allowOwn(), Names: []string{"jammy"}, LastWins: true}
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
	_, err := client.Fetch(t.Context(), &artifacts.Request{Event: event(t, run), Policy: allowOwn()})
	require.ErrorIs(t, err, artifacts.ErrRateLimited)
	assert.Equal(t, 500*time.Second, waited)
	assert.Len(t, limited, 3)
}

// An acceptance rule of the caller's decides in place of the policy, and knows
// what that says. References, and the branch that was asked for, are checked all
// the same.
func TestFetchAccept(t *testing.T) {
	strict := func(_ context.Context, run *artifacts.Run, refusal error) error {
		if refusal == nil && run.HeadSHA != "f00" {
			return errors.New("not the commit of the release")
		}
		return refusal
	}
	lenient := func(context.Context, *artifacts.Run, error) error { return nil }
	for name, c := range map[string]struct {
		run     artifactstest.Run
		request artifacts.Request
		kind    error
		says    string
	}{
		"stricter":           {artifactstest.Run{}, artifacts.Request{Accept: strict}, artifacts.ErrRefused, `of "example/project": refused: not the commit of the release`},
		"strict enough":      {artifactstest.Run{HeadSHA: "f00"}, artifacts.Request{Accept: strict}, nil, ""},
		"the policy's":       {artifactstest.Run{HeadSHA: "f00", Conclusion: "failure"}, artifacts.Request{Accept: strict}, artifacts.ErrRefused, "rule for the conclusion"},
		"more lenient":       {artifactstest.Run{Conclusion: "failure"}, artifacts.Request{Accept: lenient}, nil, ""},
		"of another branch":  {artifactstest.Run{}, artifacts.Request{Accept: lenient, Branch: "dev"}, artifacts.ErrRefused, `asked for is "dev"`},
		"reference refused":  {artifactstest.Run{}, artifacts.Request{Accept: lenient, Policy: artifacts.Policy{Allow: []string{"ghcr.io/x"}}}, artifacts.ErrRefused, "rule for repositories"},
		"ended, not refused": {artifactstest.Run{}, artifacts.Request{Accept: func(ctx context.Context, _ *artifacts.Run, _ error) error { return ctx.Err() }}, nil, ""},
	} {
		s, run := aBuild(t, c.run)
		r := c.request
		r.Event = event(t, run)
		if r.Policy.Allow == nil {
			r.Policy = allowOwn()
		}
		b, err := newClient(t, s, nil).Fetch(t.Context(), &r)
		require.ErrorIs(t, err, c.kind, name)
		if c.kind == nil {
			assert.Len(t, b.Outputs, 3, name)
			continue
		}
		assert.ErrorContains(t, err, c.says, name)
	}
}

// A parser of the caller's reads what the build wrote in a format of its own.
func TestFetchParse(t *testing.T) {
	s := artifactstest.New(t)
	run := s.AddRun(artifactstest.Run{})
	s.AddArtifact(run, artifactstest.Artifact{Name: "images", Files: map[string]string{"images.json": `{"jammy": "` + own + `:jammy-1", "evil": "ghcr.io/evil/x:t"}`}})
	parse := func(files fs.FS) (outputs, overridden []artifacts.Output, err error) {
		raw, err := fs.ReadFile(files, "images.json")
		if err != nil {
			return nil, nil, err
		}
		images := map[string]string{}
		if err := json.Unmarshal(raw, &images); err != nil {
			return nil, nil, err
		}
		for name, reference := range images {
			outputs = append(outputs, artifacts.Output{Name: name, Reference: reference, File: "images.json", Line: 1})
		}
		return outputs, nil, nil
	}
	r := artifacts.Request{Event: event(t, run), Pattern: "images", Policy: allowOwn(), Parse: parse, Names: []string{"jammy"}}
	b, err := newClient(t, s, nil).Fetch(t.Context(), &r)
	require.NoError(t, err)
	assert.Equal(t, []artifacts.Output{{Name: "jammy", Reference: own + ":jammy-1", File: "images.json", Line: 1}}, b.Outputs)
	assert.Equal(t, "images", b.From(b.Outputs[0]).Name)

	r.Names = nil
	_, err = newClient(t, s, nil).Fetch(t.Context(), &r)
	require.ErrorIs(t, err, artifacts.ErrRefused, "a reference is not trusted because another parser read it")
	r.Names = []string{"noble"}
	_, err = newClient(t, s, nil).Fetch(t.Context(), &r)
	require.ErrorIs(t, err, artifacts.ErrNoArtifact)
	r.Parse = func(fs.FS) (_, _ []artifacts.Output, err error) { return nil, nil, io.ErrUnexpectedEOF }
	_, err = newClient(t, s, nil).Fetch(t.Context(), &r)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.ErrorContains(t, err, "the artifacts of run")

	r.Names = nil
	for name, outputs := range map[string][]artifacts.Output{
		"none":         nil,
		"bad name":     {{Name: "a b", Reference: own + ":jammy-1"}},
		"no reference": {{Name: "jammy"}},
	} {
		r.Parse = func(fs.FS) (_, _ []artifacts.Output, err error) { return outputs, nil, nil }
		_, err = newClient(t, s, nil).Fetch(t.Context(), &r)
		require.ErrorIs(t, err, artifacts.ErrOutputs, name)
	}
}

// Nil and zero values are an error or a default, never a panic.
func TestNilArguments(t *testing.T) {
	s := artifactstest.New(t)
	_, err := newClient(t, s, nil).Fetch(t.Context(), nil)
	require.ErrorIs(t, err, artifacts.ErrEvent)
	for _, c := range []*artifacts.Client{nil, {}} {
		_, err = c.Run(t.Context(), repo, 1)
		require.ErrorIs(t, err, artifacts.ErrRequest)
		_, err = c.List(t.Context(), repo, 1, "*")
		require.ErrorIs(t, err, artifacts.ErrRequest)
		_, err = c.Download(t.Context(), repo, artifacts.Artifact{ID: 1})
		require.Error(t, err)
		_, err = c.Fetch(t.Context(), &artifacts.Request{Repository: repo, RunID: 1})
		require.ErrorIs(t, err, artifacts.ErrRequest)
		run := goodRun()
		_, err = c.Fetch(t.Context(), &artifacts.Request{Event: &artifacts.Event{Run: &run, RunID: 5, Repository: repo}})
		require.ErrorIs(t, err, artifacts.ErrRequest)
	}
	_, err = artifacts.ReadEvent("push", nil)
	require.ErrorIs(t, err, artifacts.ErrEvent)
	t.Setenv("GITHUB_EVENT_NAME", "")
	_, err = artifacts.EnvironmentEvent(nil)
	require.ErrorIs(t, err, artifacts.ErrEvent)
	_, _, err = artifacts.ReadOutputs(nil)
	require.ErrorIs(t, err, artifacts.ErrOutputs)
	var policy *artifacts.Policy
	require.NoError(t, policy.Validate())
	run := goodRun()
	require.NoError(t, policy.Check(&run))
	require.ErrorIs(t, policy.Check(nil), artifacts.ErrRefused)
	require.ErrorIs(t, policy.CheckReference(own+":t"), artifacts.ErrRefused)
	m, err := artifacts.Merge([]*artifacts.Archive{nil, {}}, nil)
	require.NoError(t, err)
	assert.Empty(t, m.Files)
	assert.Zero(t, (&artifacts.Build{}).From(artifacts.Output{}))
	require.NoError(t, (&artifacts.MergedDir{}).WriteDir(t.TempDir()))
	assert.NotEmpty(t, (&artifacts.Error{}).Error())
}
