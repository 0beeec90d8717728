package artifacts_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/artifacts/artifactstest"
)

const (
	repo  = "example/project"
	token = "ghs_TOP-SECRET-TOKEN"
)

// newClient returns a client of a server that never really waits.
func newClient(t *testing.T, s *artifactstest.Server, change func(*artifacts.Options)) *artifacts.Client {
	t.Helper()
	o := &artifacts.Options{
		APIURL: s.URL(), Token: token, RetryWait: time.Millisecond,
		Wait: func(context.Context, time.Duration) error { t.Error("it waits"); return nil },
	}
	if change != nil {
		change(o)
	}
	c, err := artifacts.New(o)
	require.NoError(t, err)
	return c
}

func TestRun(t *testing.T) {
	s := artifactstest.New(t)
	run := s.AddRun(artifactstest.Run{HeadBranch: "release/2.9", RunAttempt: 3})
	s.SetQuirks(artifactstest.Quirks{Token: token})
	got, err := newClient(t, s, nil).Run(t.Context(), "Example/Project", run.ID)
	require.NoError(t, err)
	assert.Equal(t, &artifacts.Run{
		ID: run.ID, Attempt: 3, Number: 1, Name: "docker-builds", Path: ".github/workflows/docker-builds.yml", Event: "push",
		Status: "completed", Conclusion: "success", HeadBranch: "release/2.9", HeadSHA: run.HeadSHA,
		Repository: repo, HeadRepository: repo, CreatedAt: run.CreatedAt, StartedAt: run.RunStartedAt, UpdatedAt: run.UpdatedAt, HTMLURL: run.HTMLURL,
	}, got)
	assert.Equal(t, "example", got.Owner())
	request := s.Requests()[0]
	assert.Equal(t, "application/vnd.github+json", request.Header.Get("Accept"))
	assert.Equal(t, "2022-11-28", request.Header.Get("X-Github-Api-Version"))

	// A token that was read from a file ends with a newline.
	for _, end := range []string{"\n", "\r\n", " \n\n", ""} {
		_, err = newClient(t, s, func(o *artifacts.Options) { o.Token = end + token + end }).Run(t.Context(), repo, run.ID)
		require.NoError(t, err)
	}

	// Null is what a run in progress, and one of a deleted fork, have.
	run = s.AddRun(artifactstest.Run{Conclusion: "-", HeadBranch: "-", HeadRepository: "-"})
	got, err = newClient(t, s, nil).Run(t.Context(), repo, run.ID)
	require.NoError(t, err)
	assert.Empty(t, got.Conclusion+got.HeadBranch+got.HeadRepository)
}

// Each trouble has its kind, says what to do, and holds no secret.
func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		quirks artifactstest.Quirks
		kind   error
		says   string
	}{
		"no permission":    {artifactstest.Quirks{NoPermission: true}, artifacts.ErrNotFound, `"actions: read"`},
		"wrong token":      {artifactstest.Quirks{Token: "other"}, artifacts.ErrDenied, "Bad credentials"},
		"denied":           {artifactstest.Quirks{Status: 403}, artifacts.ErrDenied, "status 403"},
		"renamed":          {artifactstest.Quirks{MovedTo: "https://api.github.com/repositories/1"}, artifacts.ErrOtherRepository, "Moved"},
		"other repository": {artifactstest.Quirks{OtherRepository: "evil/project"}, artifacts.ErrOtherRepository, `a run of "evil/project"`},
		"web page":         {artifactstest.Quirks{Page: "<html>"}, artifacts.ErrAnswer, "GITHUB_API_URL"},
		"another run":      {artifactstest.Quirks{Page: `{"id": 7}`}, artifacts.ErrAnswer, "about run 7"},
		"broken":           {artifactstest.Quirks{Status: 500}, artifacts.ErrUnreachable, "status 500"},
		"unprocessable":    {artifactstest.Quirks{Status: 422}, artifacts.ErrAnswer, "status 422"},
		"too long":         {artifactstest.Quirks{Page: string(make([]byte, 9<<20))}, artifacts.ErrLimit, "more than 8388608 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			s := artifactstest.New(t)
			run := s.AddRun(artifactstest.Run{})
			s.SetQuirks(c.quirks)
			_, err := newClient(t, s, nil).Run(t.Context(), repo, run.ID)
			require.ErrorIs(t, err, c.kind)
			assert.ErrorContains(t, err, c.says)
			assert.ErrorContains(t, err, "ask for run ")
			assert.NotContains(t, err.Error(), "Options.Limits", "no limit on downloads is at fault")
			assert.NotContains(t, err.Error(), "SECRET")
			want := 1
			if errors.Is(c.kind, artifacts.ErrUnreachable) {
				want = 5
			}
			assert.Len(t, s.Requests(), want, "what cannot go better is asked once")
		})
	}
	s := artifactstest.New(t)
	client := newClient(t, s, nil)
	s.Close()
	_, err := client.Run(t.Context(), repo, 1)
	require.ErrorIs(t, err, artifacts.ErrUnreachable)
	assert.NotContains(t, err.Error(), "http://", "net/http's text has the URL")
}

func TestErrorsAreTextOfOneLine(t *testing.T) {
	s := artifactstest.New(t)
	s.SetQuirks(artifactstest.Quirks{Page: `{"id": 1, "repository": {"full_name": "a\u001b[31m\n::error::x https://x/?sig=TOP-SECRET"}}`})
	_, err := newClient(t, s, nil).Run(t.Context(), repo, 1)
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "\n")
	assert.NotContains(t, err.Error(), "\x1b")
	assert.NotContains(t, err.Error(), "SECRET")
	long := &artifacts.Error{Op: "x", Source: "y", Kind: artifacts.ErrAnswer, Err: errors.New(string(bytes.Repeat([]byte("é"), 10000)))}
	assert.Less(t, len(long.Error()), 1200)
}

func TestTemporaryTrouble(t *testing.T) {
	s := artifactstest.New(t)
	run := s.AddRun(artifactstest.Run{})
	s.SetQuirks(artifactstest.Quirks{Status: 502, StatusCount: 4})
	_, err := newClient(t, s, nil).Run(t.Context(), repo, run.ID)
	require.NoError(t, err)
	assert.Equal(t, 4, s.Happened("Status"))
}

func TestRateLimits(t *testing.T) {
	for name, c := range map[string]struct {
		quirks artifactstest.Quirks
		waits  []time.Duration
	}{
		"primary 403":       {artifactstest.Quirks{RateLimit: 403, RateLimitCount: 1, Reset: 90}, []time.Duration{91 * time.Second}},
		"primary 429":       {artifactstest.Quirks{RateLimit: 429, RateLimitCount: 2, Reset: 30}, []time.Duration{31 * time.Second, 31 * time.Second}},
		"secondary 403":     {artifactstest.Quirks{RateLimit: 403, RateLimitCount: 1, RetryAfter: 7}, []time.Duration{7 * time.Second}},
		"retry-after first": {artifactstest.Quirks{RateLimit: 403, RateLimitCount: 1, RetryAfter: 7, Reset: 500}, []time.Duration{7 * time.Second}},
		"without a time":    {artifactstest.Quirks{RateLimit: 403, RateLimitCount: 2}, []time.Duration{time.Minute, 2 * time.Minute}},
		"another clock":     {artifactstest.Quirks{RateLimit: 403, RateLimitCount: 1, Reset: 10, Now: 1_000_000_000}, []time.Duration{11 * time.Second}},
		"the reset is over": {artifactstest.Quirks{RateLimit: 403, RateLimitCount: 1, Reset: -50}, []time.Duration{2 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			s := artifactstest.New(t)
			run := s.AddRun(artifactstest.Run{})
			s.SetQuirks(c.quirks)
			var waits []time.Duration
			client := newClient(t, s, func(o *artifacts.Options) {
				o.Wait = func(_ context.Context, d time.Duration) error { waits = append(waits, d); return nil }
			})
			_, err := client.Run(t.Context(), repo, run.ID)
			require.NoError(t, err)
			assert.Equal(t, c.waits, waits)
		})
	}
}

// The waits of one call are bounded together, and the error says until when the
// limit holds.
func TestRateLimitTooLong(t *testing.T) {
	s := artifactstest.New(t)
	run := s.AddRun(artifactstest.Run{})
	var waited time.Duration
	client := newClient(t, s, func(o *artifacts.Options) {
		o.Wait = func(_ context.Context, d time.Duration) error { waited += d; return nil }
	})
	s.SetQuirks(artifactstest.Quirks{RateLimit: 403, Reset: 240, Now: 1_000_000_000})
	_, err := client.Run(t.Context(), repo, run.ID)
	require.ErrorIs(t, err, artifacts.ErrRateLimited)
	assert.ErrorContains(t, err, "until 2001-09-09T01:50:41Z")
	assert.Equal(t, 482*time.Second, waited, "twice 241 s, the third would make it more than 10 min")
	s.SetQuirks(artifactstest.Quirks{RateLimit: 429, RetryAfter: 2_000_000_000})
	_, err = client.Run(t.Context(), repo, run.ID)
	require.ErrorIs(t, err, artifacts.ErrRateLimited)

	s.SetQuirks(artifactstest.Quirks{RateLimit: 403, Reset: 1 << 62})
	_, err = client.Run(t.Context(), repo, run.ID)
	require.ErrorIs(t, err, artifacts.ErrRateLimited)

	waited = 0
	s.SetQuirks(artifactstest.Quirks{RateLimit: 403, Reset: -1000}) // for ever
	_, err = client.Run(t.Context(), repo, run.ID)
	require.ErrorIs(t, err, artifacts.ErrRateLimited)
	assert.Equal(t, 10*time.Minute, waited)

	canceled := errors.New("canceled")
	client = newClient(t, s, func(o *artifacts.Options) {
		o.Wait = func(context.Context, time.Duration) error { return canceled }
	})
	s.SetQuirks(artifactstest.Quirks{RateLimit: 429, RetryAfter: 5})
	_, err = client.Run(t.Context(), repo, run.ID)
	require.ErrorIs(t, err, canceled)
}

func TestCanceled(t *testing.T) {
	s := artifactstest.New(t)
	s.SetQuirks(artifactstest.Quirks{Status: 503})
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err := newClient(t, s, nil).Run(ctx, repo, 1)
	require.ErrorIs(t, err, cause)
	require.ErrorIs(t, err, context.Canceled)
}

func TestAPIURL(t *testing.T) {
	for _, bad := range []string{"http://api.github.com", "ftp://localhost", "https://user:SECRET@ghe.example.com/api/v3", "https://", "https://x/?q=SECRET", "api.github.com", "http://localhost.evil.example", ":"} {
		_, err := artifacts.New(&artifacts.Options{APIURL: bad})
		require.ErrorIs(t, err, artifacts.ErrRequest, bad)
		assert.NotContains(t, err.Error(), "SECRET")
	}
	for _, good := range []string{"http://localhost:1", "http://127.0.0.1", "http://[::1]:1/x", "https://ghe.example.com/api/v3"} {
		_, err := artifacts.New(&artifacts.Options{APIURL: good})
		require.NoError(t, err, good)
	}
	s := artifactstest.New(t)
	run := s.AddRun(artifactstest.Run{})
	t.Setenv("GITHUB_API_URL", s.URL())
	c, err := artifacts.New(nil)
	require.NoError(t, err)
	_, err = c.Run(t.Context(), repo, run.ID)
	require.NoError(t, err)
	assert.Empty(t, s.Requests()[0].Header.Get("Authorization"), "no token, no header")
	t.Setenv("GITHUB_API_URL", "")
	var asked string
	c, err = artifacts.New(&artifacts.Options{RetryWait: 1, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		asked = r.URL.String()
		return nil, errors.New("no network here")
	})})
	require.NoError(t, err)
	_, err = c.Run(t.Context(), repo, 5)
	require.ErrorIs(t, err, artifacts.ErrUnreachable)
	assert.Equal(t, "https://api.github.com/repos/example/project/actions/runs/5", asked)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What would become another path is not asked for.
func TestRequestsAreChecked(t *testing.T) {
	s := artifactstest.New(t)
	c := newClient(t, s, nil)
	for _, repository := range []string{"", "project", "a/b/c", "../user", "a/..", "a/b?x=y", "a/b#", "a/%2e%2e", "a /b", "/b", "a/", "é/x"} {
		_, err := c.Run(t.Context(), repository, 1)
		require.ErrorIs(t, err, artifacts.ErrRequest, repository)
		_, err = c.List(t.Context(), repository, 1, "*")
		require.ErrorIs(t, err, artifacts.ErrRequest, repository)
		_, err = c.Download(t.Context(), repository, artifacts.Artifact{ID: 1})
		require.ErrorIs(t, err, artifacts.ErrRequest, repository)
	}
	_, err := c.Run(t.Context(), repo, 0)
	require.ErrorIs(t, err, artifacts.ErrRequest)
	_, err = c.List(t.Context(), repo, 1, "[")
	require.ErrorIs(t, err, artifacts.ErrRequest)
	assert.Empty(t, s.Requests())
}

func logTo(b *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
