package artifactstest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts/artifactstest"
)

// get asks without following redirects.
func get(t *testing.T, url string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp, err.Error()
	}
	return resp, string(body)
}

// location asks for the URL of an artifact in the storage.
func location(t *testing.T, s *artifactstest.Server, id int64) string {
	t.Helper()
	resp, _ := get(t, fmt.Sprintf("%s/repos/example/project/actions/artifacts/%d/zip", s.URL(), id))
	require.Equal(t, http.StatusFound, resp.StatusCode)
	return resp.Header.Get("Location")
}

func aRun(t *testing.T) (s *artifactstest.Server, run artifactstest.Run, id int64) {
	t.Helper()
	s = artifactstest.New(t)
	run = s.AddRun(artifactstest.Run{})
	return s, run, s.AddArtifact(run, artifactstest.Artifact{Name: "a", Files: map[string]string{"a.txt": "x"}})
}

// The storage refuses what was meant for the API, as the real one does.
func TestStorageFailsWhenItSeesAToken(t *testing.T) {
	s, _, id := aRun(t)
	for _, header := range []string{"Authorization", "Cookie", "Referer"} {
		resp, body := get(t, location(t, s, id), header, "x")
		assert.Equal(t, http.StatusBadRequest, resp.StatusCode, header)
		assert.Contains(t, body, "InvalidAuthenticationInfo")
	}
	resp, body := get(t, location(t, s, id))
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Equal(t, "application/zip", resp.Header.Get("Content-Type"))
	assert.Equal(t, string(artifactstest.Zip(map[string]string{"a.txt": "x"})), body)
	assert.NotContains(t, s.URL(), s.StorageHost(), "another origin")
}

// A URL is good once, where the real one is good for a minute.
func TestURLsAreShortLived(t *testing.T) {
	s, _, id := aRun(t)
	url := location(t, s, id)
	assert.Contains(t, url, artifactstest.Signature)
	for _, want := range []int{http.StatusOK, http.StatusForbidden, http.StatusForbidden} {
		resp, _ := get(t, url)
		assert.Equal(t, want, resp.StatusCode)
	}
	s.SetQuirks(artifactstest.Quirks{ExpiredURL: true, ExpiredURLCount: 1})
	for _, want := range []int{http.StatusForbidden, http.StatusOK} {
		resp, _ := get(t, location(t, s, id))
		assert.Equal(t, want, resp.StatusCode)
	}
	assert.Equal(t, 1, s.Happened("ExpiredURL"))
}

func TestPages(t *testing.T) {
	s, run, _ := aRun(t)
	for range 4 {
		s.AddArtifact(run, artifactstest.Artifact{Name: "b"})
	}
	page := func(query string) (names []string, total int) {
		_, body := get(t, fmt.Sprintf("%s/repos/example/project/actions/runs/%d/artifacts?%s", s.URL(), run.ID, query))
		var list struct {
			TotalCount int `json:"total_count"`
			Artifacts  []struct{ Name string }
		}
		require.NoError(t, json.Unmarshal([]byte(body), &list))
		for _, a := range list.Artifacts {
			names = append(names, a.Name)
		}
		return names, list.TotalCount
	}
	for query, want := range map[string]int{"per_page=2": 2, "per_page=2&page=3": 1, "per_page=100": 5, "per_page=100&page=2": 0} {
		names, total := page(query)
		assert.Len(t, names, want, query)
		assert.Equal(t, 5, total)
	}
	s.SetQuirks(artifactstest.Quirks{PageSize: 3, TooMany: 7})
	names, total := page("per_page=100")
	assert.Equal(t, []string{"b", "b", "b"}, names, "the newest first")
	assert.Equal(t, 12, total)
}

// Each quirk of the API shows.
func TestQuirks(t *testing.T) {
	s, run, id := aRun(t)
	runURL := fmt.Sprintf("%s/repos/example/project/actions/runs/%d", s.URL(), run.ID)
	list := runURL + "/artifacts"
	zip := fmt.Sprintf("%s/repos/example/project/actions/artifacts/%d/zip", s.URL(), id)
	for name, c := range map[string]struct {
		quirks artifactstest.Quirks
		url    string
		status int
		says   string
	}{
		"Token":           {artifactstest.Quirks{Token: "t"}, runURL, 401, "Bad credentials"},
		"NoPermission":    {artifactstest.Quirks{NoPermission: true}, list, 404, "Not Found"},
		"MovedTo":         {artifactstest.Quirks{MovedTo: "https://api.github.com/repositories/1"}, runURL, 301, "Moved"},
		"Status":          {artifactstest.Quirks{Status: 502}, list, 502, ""},
		"Page":            {artifactstest.Quirks{Page: "<html>"}, list, 200, "<html>"},
		"RateLimit":       {artifactstest.Quirks{RateLimit: 403}, list, 403, "secondary rate limit"},
		"Gone":            {artifactstest.Quirks{Gone: true}, zip, 410, "expired"},
		"OtherRun":        {artifactstest.Quirks{OtherRun: true}, list, 200, fmt.Sprintf(`"workflow_run":{"id":%d}`, run.ID+1)},
		"OtherRepository": {artifactstest.Quirks{OtherRepository: "evil/project"}, runURL, 200, `"repository":{"full_name":"evil/project"}`},
		"RedirectTo":      {artifactstest.Quirks{RedirectTo: "https://elsewhere.example"}, zip, 302, ""},
		"none":            {artifactstest.Quirks{}, runURL, 200, `"repository":{"full_name":"example/project"}`},
	} {
		s.SetQuirks(c.quirks)
		resp, body := get(t, c.url)
		assert.Equal(t, c.status, resp.StatusCode, name)
		assert.Contains(t, body, c.says, name)
	}
	s.SetQuirks(artifactstest.Quirks{Token: "t"})
	resp, _ := get(t, runURL, "Authorization", "Bearer t")
	assert.Equal(t, 200, resp.StatusCode)

	s.SetQuirks(artifactstest.Quirks{RateLimit: 429, RateLimitCount: 1, Reset: 30, RetryAfter: 7, Now: 1_000_000_000})
	resp, _ = get(t, runURL)
	assert.Equal(t, 429, resp.StatusCode)
	assert.Equal(t, "7", resp.Header.Get("Retry-After"))
	assert.Equal(t, "0", resp.Header.Get("X-RateLimit-Remaining"))
	assert.Equal(t, "1000000030", resp.Header.Get("X-RateLimit-Reset"))
	assert.Equal(t, time.Unix(1_000_000_000, 0).UTC().Format(http.TimeFormat), resp.Header.Get("Date"))
	resp, _ = get(t, runURL)
	assert.Equal(t, 200, resp.StatusCode)
}

// And each of the storage.
func TestStorageQuirks(t *testing.T) {
	s, run, id := aRun(t)
	good := string(artifactstest.Zip(map[string]string{"a.txt": "x"}))
	for name, c := range map[string]struct {
		quirks artifactstest.Quirks
		status int
		check  func(body string) bool
	}{
		"StorageStatus": {artifactstest.Quirks{StorageStatus: 503, StorageStatusCount: 1}, 503, func(string) bool { return true }},
		"CutBody":       {artifactstest.Quirks{CutBody: true, CutBodyCount: 1}, 200, func(body string) bool { return body == "unexpected EOF" }},
		"WrongBytes":    {artifactstest.Quirks{WrongBytes: true, WrongBytesCount: 1}, 200, func(body string) bool { return body != good && len(body) == len(good) }},
		"ShortBody":     {artifactstest.Quirks{ShortBody: true}, 200, func(body string) bool { return body == good[:len(good)-1] }},
	} {
		s.SetQuirks(c.quirks)
		resp, body := get(t, location(t, s, id))
		assert.Equal(t, c.status, resp.StatusCode, name)
		assert.True(t, c.check(body), "%s: %q", name, body)
		if name != "ShortBody" {
			_, body = get(t, location(t, s, id))
			assert.Equal(t, good, body, "%s happens once", name)
		}
	}
	s.SetQuirks(artifactstest.Quirks{})
	expired := s.AddArtifact(run, artifactstest.Artifact{Name: "old", Expired: true})
	resp, _ := get(t, fmt.Sprintf("%s/repos/example/project/actions/artifacts/%d/zip", s.URL(), expired))
	assert.Equal(t, 410, resp.StatusCode)
	plain := s.AddArtifact(run, artifactstest.Artifact{Name: "plain", Raw: []byte("text"), ContentType: "text/plain", Disposition: "attachment; filename=x"})
	resp, body := get(t, location(t, s, plain))
	assert.Equal(t, "text", body)
	assert.Equal(t, "text/plain", resp.Header.Get("Content-Type"))
	assert.Equal(t, "attachment; filename=x", resp.Header.Get("Content-Disposition"))
	_, body = get(t, fmt.Sprintf("%s/repos/example/other/actions/runs/%d", s.URL(), run.ID))
	assert.Contains(t, body, "Not Found", "a run of another repository")
}
