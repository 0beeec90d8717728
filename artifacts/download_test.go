package artifacts_test

import (
	"bytes"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/artifacts/artifactstest"
	"github.com/dockercache/dockercache/internal/httpclient"
)

// one adds a run with one artifact and returns what the API says of it.
func one(t *testing.T, s *artifactstest.Server, a artifactstest.Artifact) artifacts.Artifact {
	t.Helper()
	run := s.AddRun(artifactstest.Run{})
	if a.Name == "" {
		a.Name = "build"
	}
	if a.Files == nil {
		a.Files = map[string]string{"a.txt": "a=x:1\n", "sub/b.txt": "b"}
	}
	s.AddArtifact(run, a)
	list, err := newClient(t, s, nil).List(t.Context(), repo, run.ID, "*")
	require.NoError(t, err)
	require.Len(t, list, 1)
	return list[0]
}

func TestDownload(t *testing.T) {
	s := artifactstest.New(t)
	s.SetQuirks(artifactstest.Quirks{Token: token})
	archive, err := newClient(t, s, nil).Download(t.Context(), repo, one(t, s, artifactstest.Artifact{}))
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(archive, "a.txt", "sub/b.txt"))
	content, err := fs.ReadFile(archive, "a.txt")
	require.NoError(t, err)
	assert.Equal(t, "a=x:1\n", string(content))
}

// The token goes to the API alone, and the storage's URL is in no text.
func TestDownloadKeepsSecrets(t *testing.T) {
	s := artifactstest.New(t)
	s.SetQuirks(artifactstest.Quirks{Token: token})
	a := one(t, s, artifactstest.Artifact{})
	var log bytes.Buffer
	client := newClient(t, s, func(o *artifacts.Options) { o.Logger = logTo(&log) })
	_, err := client.Download(t.Context(), repo, a)
	require.NoError(t, err)
	requests := s.Requests()
	get := requests[len(requests)-1]
	require.True(t, get.Storage)
	for _, header := range []string{"Authorization", "Cookie", "Referer"} {
		assert.Empty(t, get.Header.Get(header))
	}
	assert.Equal(t, "identity", get.Header.Get("Accept-Encoding"), "the digest is of what is stored")
	s.SetQuirks(artifactstest.Quirks{StorageStatus: 403})
	_, refused := client.Download(t.Context(), repo, a)
	require.ErrorIs(t, refused, artifacts.ErrUnreachable)
	assert.ErrorContains(t, refused, "the storage "+s.StorageHost()+" answers 403")
	gone := httptest.NewServer(nil)
	gone.Close()
	s.SetQuirks(artifactstest.Quirks{RedirectTo: gone.URL}) // now net/http's own error has the URL
	_, unreachable := client.Download(t.Context(), repo, a)
	require.ErrorIs(t, unreachable, artifacts.ErrUnreachable)
	for _, text := range []string{log.String(), refused.Error(), unreachable.Error()} {
		assert.NotEmpty(t, text)
		assert.NotContains(t, text, "SECRET")
		assert.NotContains(t, text, "sig=")
	}
}

// Each repetition asks the API for a new URL: the first one's minute is over.
func TestDownloadIsRepeated(t *testing.T) {
	for name, quirks := range map[string]artifactstest.Quirks{
		"ExpiredURL":    {ExpiredURL: true, ExpiredURLCount: 2},
		"StorageStatus": {StorageStatus: 503, StorageStatusCount: 3},
		"CutBody":       {CutBody: true, CutBodyCount: 2},
		"Status":        {Status: 500, StatusCount: 2},
	} {
		s := artifactstest.New(t)
		a := one(t, s, artifactstest.Artifact{})
		s.SetQuirks(quirks)
		archive, err := newClient(t, s, nil).Download(t.Context(), repo, a)
		require.NoError(t, err, name)
		content, err := fs.ReadFile(archive, "sub/b.txt")
		require.NoError(t, err)
		assert.Equal(t, "b", string(content))
		assert.NotZero(t, s.Happened(name))
		urls := map[string]bool{}
		for _, r := range s.Requests() {
			if r.Storage {
				assert.False(t, urls[r.Query], "no URL is used twice")
				urls[r.Query] = true
			}
		}
	}
}

func TestDownloadRefuses(t *testing.T) {
	zipped := artifactstest.Zip(map[string]string{"a.txt": "x"})
	for name, c := range map[string]struct {
		artifact artifactstest.Artifact
		quirks   artifactstest.Quirks
		kind     error
		says     string
	}{
		"expired":            {artifactstest.Artifact{Expired: true}, artifactstest.Quirks{}, artifacts.ErrExpired, "it was kept until 2026-01-16"},
		"expires meanwhile":  {artifactstest.Artifact{}, artifactstest.Quirks{Gone: true}, artifacts.ErrExpired, "run the build again"},
		"wrong digest":       {artifactstest.Artifact{}, artifactstest.Quirks{WrongBytes: true}, artifacts.ErrDigest, "the API states sha256:"},
		"short":              {artifactstest.Artifact{}, artifactstest.Quirks{ShortBody: true}, artifacts.ErrDigest, "the API states sha256:"},
		"short, no digest":   {artifactstest.Artifact{Digest: "-"}, artifactstest.Quirks{ShortBody: true}, artifacts.ErrArchive, "zip"},
		"cut for ever":       {artifactstest.Artifact{}, artifactstest.Quirks{CutBody: true}, artifacts.ErrUnreachable, "unexpected EOF"},
		"other digest":       {artifactstest.Artifact{Digest: "sha512:00"}, artifactstest.Quirks{}, artifacts.ErrDigest, "want sha256"},
		"wrong size":         {artifactstest.Artifact{Size: 7}, artifactstest.Quirks{}, artifacts.ErrDigest, "the API states 7 bytes"},
		"stated too large":   {artifactstest.Artifact{Size: 2001}, artifactstest.Quirks{}, artifacts.ErrLimit, "the limit is 2000"},
		"too large":          {artifactstest.Artifact{Raw: make([]byte, 2001), Size: 5}, artifactstest.Quirks{}, artifacts.ErrLimit, "more than 2000 bytes"},
		"a page, no digest":  {artifactstest.Artifact{Raw: []byte("<html>"), ContentType: "text/html", Digest: "-"}, artifactstest.Quirks{}, artifacts.ErrAnswer, "no digest to verify it by"},
		"a page called zip":  {artifactstest.Artifact{Raw: []byte("<html>"), Digest: "-"}, artifactstest.Quirks{}, artifacts.ErrArchive, "not a valid zip"},
		"a bad name":         {artifactstest.Artifact{Raw: zipped, ContentType: "text/plain", Disposition: `attachment; filename="../x"`}, artifactstest.Quirks{}, artifacts.ErrArchive, `".."`},
		"to plain HTTP":      {artifactstest.Artifact{}, artifactstest.Quirks{RedirectTo: "http://storage.example.com"}, artifacts.ErrAnswer, "only https"},
		"to a file":          {artifactstest.Artifact{}, artifactstest.Quirks{RedirectTo: "file:///etc/passwd"}, artifacts.ErrAnswer, "only https"},
		"permission is gone": {artifactstest.Artifact{}, artifactstest.Quirks{NoPermission: true}, artifacts.ErrNotFound, "download artifact"},
	} {
		t.Run(name, func(t *testing.T) {
			s := artifactstest.New(t)
			a := one(t, s, c.artifact)
			s.SetQuirks(c.quirks)
			archive, err := newClient(t, s, func(o *artifacts.Options) { o.Limits.ArchiveBytes = 2000 }).Download(t.Context(), repo, a)
			require.ErrorIs(t, err, c.kind)
			assert.ErrorContains(t, err, c.says)
			assert.Nil(t, archive)
		})
	}
}

// A public API may not lead to a service of this machine.
func TestDownloadIsNotLedHome(t *testing.T) {
	for _, target := range []string{"https://127.0.0.1/latest", "http://localhost/x", "https://169.254.169.254/latest/meta-data", "https://[::1]/", "https://0.0.0.0/", "https://[::ffff:127.0.0.1]/", "https://x.localhost./", "https://[64:ff9b::a9fe:a9fe]/"} {
		asked := 0
		c, err := artifacts.New(&artifacts.Options{APIURL: "https://api.example.com", RetryWait: 1, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			asked++
			w := httptest.NewRecorder()
			w.Header().Set("Location", target)
			w.WriteHeader(http.StatusFound)
			return w.Result(), nil
		})})
		require.NoError(t, err)
		_, err = c.Download(t.Context(), repo, artifacts.Artifact{ID: 1})
		require.ErrorIs(t, err, artifacts.ErrAnswer, target)
		assert.ErrorContains(t, err, "only a server on this machine may do")
		assert.Equal(t, 1, asked)
	}
}

// Nor by a name: the address counts that is dialled. An API that is there itself may.
func TestDownloadIsNotLedHomeByAName(t *testing.T) {
	s := artifactstest.New(t)
	run := s.AddRun(artifactstest.Run{})
	id := s.AddArtifact(run, artifactstest.Artifact{Name: "build", Digest: "-", Files: map[string]string{"a.txt": "x"}})
	s.SetQuirks(artifactstest.Quirks{RedirectTo: "https://storage.example.com"})
	var dialer *http.Transport
	// Names are resolved here, in place of a name server.
	dial := func(r *http.Request, host string) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.URL.Scheme, r.URL.Host = "http", host
		return dialer.RoundTrip(r)
	}
	api := strings.TrimSuffix(strings.TrimPrefix(s.URL(), "http://"), "/api/v3")
	for _, apiIsHere := range []bool{false, true} {
		asked := len(s.Requests())
		dialer = httpclient.NewTransport()
		c, err := artifacts.New(&artifacts.Options{APIURL: "https://api.example.com/api/v3", RetryWait: 1, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			switch {
			case r.URL.Host == "storage.example.com":
				return dial(r, s.StorageHost())
			case apiIsHere:
				return dial(r, api)
			}
			r = r.Clone(t.Context()) // as from a public address: nothing looks at this one
			return dial(r, api)
		})})
		require.NoError(t, err)
		_, err = c.Download(t.Context(), repo, artifacts.Artifact{ID: id, Name: "build"})
		if apiIsHere {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, artifacts.ErrAnswer)
		assert.ErrorContains(t, err, "api.example.com redirects to storage.example.com at "+s.StorageHost()+", an address of this machine, which only a server on this machine may do")
		assert.Len(t, s.Requests(), asked+1, "the storage was not asked, and the API once")
	}
}

// Uploads that are not zipped are one file, named by the storage.
func TestDownloadOfAPlainFile(t *testing.T) {
	for disposition, want := range map[string]string{
		"":                               "build",
		`attachment; filename="out.txt"`: "out.txt",
		`attachment; filename*=UTF-8''b%C3%BCild.md`: "büild.md",
		"nonsense;;;": "build",
	} {
		s := artifactstest.New(t)
		a := one(t, s, artifactstest.Artifact{Raw: []byte("jammy=x:1"), ContentType: "text/plain; charset=utf-8", Disposition: disposition})
		archive, err := newClient(t, s, nil).Download(t.Context(), repo, a)
		require.NoError(t, err)
		content, err := fs.ReadFile(archive, want)
		require.NoError(t, err)
		assert.Equal(t, "jammy=x:1", string(content))
		require.NoError(t, fstest.TestFS(archive, want))
	}
	// A zip that was uploaded as a file comes as one.
	s := artifactstest.New(t)
	a := one(t, s, artifactstest.Artifact{Raw: artifactstest.Zip(map[string]string{"in": "x"}), ContentType: "application/octet-stream", Disposition: `attachment; filename=x.bin`})
	archive, err := newClient(t, s, nil).Download(t.Context(), repo, a)
	require.NoError(t, err)
	content, err := fs.ReadFile(archive, "x.bin")
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(string(content), "PK"))
}

// Where the media type is lost, a zip is known by its content, unless the storage gives
// a file another name.
func TestDownloadOfAZipWithoutItsType(t *testing.T) {
	for _, contentType := range []string{"application/octet-stream", "binary/octet-stream", "-", "text/plain", "nonsense;;"} {
		for _, disposition := range []string{"", "attachment", `attachment; filename="build.zip"`, "attachment; filename*=UTF-8''b%C3%BCild.ZIP"} {
			for _, digest := range []string{"", "-"} {
				s := artifactstest.New(t)
				a := one(t, s, artifactstest.Artifact{ContentType: contentType, Disposition: disposition, Digest: digest})
				archive, err := newClient(t, s, nil).Download(t.Context(), repo, a)
				require.NoError(t, err, "%s, %s", contentType, disposition)
				require.NoError(t, fstest.TestFS(archive, "a.txt", "sub/b.txt"))
			}
		}
	}
	s := artifactstest.New(t)
	archive, err := newClient(t, s, nil).Download(t.Context(), repo, one(t, s, artifactstest.Artifact{Raw: zipOf(t), ContentType: "-"}))
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(archive), "a zip without a file")
	_, err = newClient(t, s, nil).Download(t.Context(), repo, one(t, s, artifactstest.Artifact{Raw: []byte("PK\x03\x04"), ContentType: "-"}))
	require.ErrorIs(t, err, artifacts.ErrArchive)

	// One that has another name is a file. If the outputs were meant to be in it, the
	// error says what is wrong.
	run := s.AddRun(artifactstest.Run{})
	s.AddArtifact(run, artifactstest.Artifact{
		Name: "docker-builds-artifacts-jammy", Raw: artifactstest.Zip(map[string]string{"a.txt": "jammy=" + own + ":1"}),
		ContentType: "application/octet-stream", Disposition: "attachment; filename=out.bin",
	})
	_, err = newClient(t, s, nil).Fetch(t.Context(), &artifacts.Request{Event: event(t, run), Policy: allowOwn(), Names: []string{"jammy"}})
	require.ErrorIs(t, err, artifacts.ErrOutputs)
	assert.ErrorContains(t, err, `"out.bin" in artifact "docker-builds-artifacts-jammy" is a zip that was uploaded as a file`)
}

// What a zip is: by its media type, or by the URL of the storage.
func TestDownloadKnowsZips(t *testing.T) {
	for name, c := range map[string]struct{ location, contentType string }{
		"zip":              {"https://storage.example.com/blob", "application/zip"},
		"with a parameter": {"https://storage.example.com/blob", "application/zip; charset=binary"},
		"x-zip-compressed": {"https://storage.example.com/blob", "application/x-zip-compressed"},
		"zip-compressed":   {"https://storage.example.com/blob", "application/zip-compressed"},
		"by its URL":       {"https://storage.example.com/blob.ZIP?sig=x", "application/octet-stream"},
	} {
		client, err := artifacts.New(&artifacts.Options{APIURL: "https://api.example.com", Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			if r.URL.Host == "api.example.com" {
				w.Header().Set("Location", c.location)
				w.WriteHeader(http.StatusFound)
				return w.Result(), nil
			}
			w.Header().Set("Content-Type", c.contentType)
			_, _ = w.Write(artifactstest.Zip(map[string]string{"a.txt": "x"}))
			return w.Result(), nil
		})})
		require.NoError(t, err)
		archive, err := client.Download(t.Context(), repo, artifacts.Artifact{ID: 1, Name: "build"})
		require.NoError(t, err, name)
		require.NoError(t, fstest.TestFS(archive, "a.txt"), name)
	}
}

// The limits of a client hold for what it unpacks.
func TestDownloadLimits(t *testing.T) {
	for says, limits := range map[string]artifacts.Limits{
		"2 entries, the limit is 1":  {Entries: 1},
		"more than 3 bytes":          {FileBytes: 3},
		"more than 6 bytes together": {TotalBytes: 6},
		"more than 2 times as large": {Ratio: 2},
		"bytes, the limit is 100 (if the build is meant to upload so much, raise Options.Limits": {ArchiveBytes: 100},
	} {
		s := artifactstest.New(t)
		files := map[string]string{"a.txt": "a=x:1\n", "sub/b.txt": "b"}
		if limits.Ratio > 0 {
			files["zeros"] = strings.Repeat("\x00", 2<<20)
		}
		a := one(t, s, artifactstest.Artifact{Files: files})
		_, err := newClient(t, s, func(o *artifacts.Options) { o.Limits = limits }).Download(t.Context(), repo, a)
		require.ErrorIs(t, err, artifacts.ErrLimit, says)
		assert.ErrorContains(t, err, says)
	}
}
