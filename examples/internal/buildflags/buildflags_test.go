package buildflags

import (
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/artifacts/artifactstest"
	"github.com/dockercache/dockercache/examples/internal/cli"
)

func parse(args ...string) (*Flags, error) {
	f := &Flags{}
	set := flag.NewFlagSet("x", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	f.Register(set)
	return f, set.Parse(args)
}

func env(nameAndValue ...string) func(string) string {
	values := map[string]string{}
	for i := 0; i < len(nameAndValue); i += 2 {
		values[nameAndValue[i]] = nameAndValue[i+1]
	}
	return func(name string) string { return values[name] }
}

func TestRequest(t *testing.T) {
	f, err := parse("-repo", "a/b", "-run-id", "5", "-names", "x,y", "-names", "z", "-allow", "ghcr.io/a/*", "-owner", "a", "-branches", "main,release/*",
		"-events", "push", "-workflows", "w.yml", "-artifacts", "p-*", "-last-wins")
	require.NoError(t, err)
	r, err := f.Request(env())
	require.NoError(t, err)
	assert.Equal(t, &artifacts.Request{
		Repository: "a/b", RunID: 5, Pattern: "p-*", Names: []string{"x", "y", "z"}, LastWins: true,
		Policy: artifacts.Policy{Owner: "a", Branches: []string{"main", "release/*"}, Events: []string{"push"}, Workflows: []string{"w.yml"}, Allow: []string{"ghcr.io/a/*"}},
	}, r)

	f, err = parse("-run-id", "5")
	require.NoError(t, err)
	r, err = f.Request(env("GITHUB_REPOSITORY", "c/d"))
	require.NoError(t, err)
	assert.Equal(t, "c/d", r.Repository)
	assert.Equal(t, artifacts.PyTorchPattern, r.Pattern)

	file := filepath.Join(t.TempDir(), "event.json")
	require.NoError(t, os.WriteFile(file, artifactstest.WorkflowRunEvent(artifactstest.Run{ID: 9}), 0o600))
	f, err = parse("-repo", "e/f")
	require.NoError(t, err)
	r, err = f.Request(env("GITHUB_EVENT_NAME", "workflow_run", "GITHUB_EVENT_PATH", file))
	require.NoError(t, err)
	assert.Equal(t, int64(9), r.Event.RunID)
	assert.Equal(t, "e/f", r.Repository)
}

func TestRequestRefuses(t *testing.T) {
	for _, args := range [][]string{{"-names", "a,,b"}, {"-names", ""}, {"-allow", "ghcr.io/x, "}, {"-run-id", "x"}} {
		_, err := parse(args...)
		require.Error(t, err, "%q", args)
	}
	for _, args := range [][]string{{}, {"-repo", "a/b"}, {"-run-id", "5"}, {"-run-id", "-5", "-repo", "a/b"}, {"-run-id", "5", "-repo", "a/b", "-allow", "debian"}, {"-run-id", "5", "-repo", "a/b", "-names", "x,x"}} {
		f, err := parse(args...)
		require.NoError(t, err)
		_, err = f.Request(env())
		require.Error(t, err, "%q", args)
		assert.NotErrorIs(t, err, artifacts.ErrEvent)
	}
	f, err := parse()
	require.NoError(t, err)
	_, err = f.Request(env("GITHUB_EVENT_NAME", "workflow_run", "GITHUB_EVENT_PATH", "/no/such/file"))
	require.ErrorIs(t, err, artifacts.ErrEvent)
}

func TestClient(t *testing.T) {
	for want, vars := range map[string][]string{
		"Bearer one": {"GITHUB_TOKEN", "one\n", "GH_TOKEN", "two"},
		"Bearer two": {"GH_TOKEN", "two"},
		"":           {},
	} {
		var got string
		s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Get("Authorization") }))
		c, err := newClient(env(append(vars, "GITHUB_API_URL", s.URL)...), nil)
		require.NoError(t, err)
		_, err = c.Run(t.Context(), "a/b", 1)
		require.ErrorIs(t, err, artifacts.ErrAnswer)
		assert.Equal(t, want, got)
		s.Close()
	}
}

// An event that cannot be used is not the command line's fault.
func TestUnusableEvent(t *testing.T) {
	f, err := parse()
	require.NoError(t, err)
	_, _, err = f.Choose(nil, "main", env("GITHUB_EVENT_NAME", "push"))
	require.ErrorIs(t, err, artifacts.ErrEvent)
	assert.IsType(t, cli.Failure(nil), err)
}

// A token that was read from a file ends with a newline; one that is blank is none.
func TestTokensAreTrimmed(t *testing.T) {
	for _, env := range []func(string) string{
		env("GITHUB_TOKEN", "secret\n"), env("GITHUB_TOKEN", "\n", "GH_TOKEN", "secret\r\n"), env("GH_TOKEN", " secret "), env("GITHUB_TOKEN", "secret", "GH_TOKEN", "other"),
	} {
		s := artifactstest.New(t)
		run := s.AddRun(artifactstest.Run{})
		s.SetQuirks(artifactstest.Quirks{Token: "secret"})
		client, err := newClient(func(name string) string {
			if name == "GITHUB_API_URL" {
				return s.URL()
			}
			return env(name)
		}, nil)
		require.NoError(t, err)
		_, err = client.Run(t.Context(), run.Repository, run.ID)
		require.NoError(t, err)
	}
}
