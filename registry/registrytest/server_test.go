package registrytest_test

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry/registrytest"
)

const (
	content = "the bytes of a layer"
	// digest is sha256 of content.
	digest = "sha256:3692935ef415e970aed321ed363fd69961585a67e6f9b5fc01e1d5b6bb89526f"
)

// answer is what a request was answered with, as far as it came.
type answer struct {
	*http.Response
	body string
	err  error // of the request or of reading the body
}

// get asks for a URL, with header lines as pairs, and follows no redirect.
func get(t *testing.T, url string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp, string(body), err}
}

// start returns a server with one blob, and its URL.
func start(t *testing.T) (server *registrytest.Server, blob string) {
	t.Helper()
	server = registrytest.New(t)
	server.PushBlob("image", []byte(content), false)
	return server, "http://" + server.Host() + "/v2/image/blobs/" + digest
}

func TestRanges(t *testing.T) {
	server, blob := start(t)
	a := get(t, blob, "Range", "bytes=4-8")
	require.NoError(t, a.err)
	assert.Equal(t, http.StatusPartialContent, a.StatusCode)
	assert.Equal(t, "bytes 4-8/20", a.Header.Get("Content-Range"))
	assert.Equal(t, "bytes", a.body)
	requests := server.Requests()
	require.Len(t, requests, 1)
	assert.Equal(t, "bytes=4-8", requests[0].Header.Get("Range"))
	assert.Equal(t, int64(5), requests[0].Sent)
	assert.NotEmpty(t, requests[0].Remote)
}

// Each quirk shows, so many times as its count says, and is counted.
func TestQuirksOfBodies(t *testing.T) {
	for name, c := range map[string]struct {
		quirks registrytest.Quirks
		faulty func(a answer) bool
	}{
		"WrongContentRange": {registrytest.Quirks{WrongContentRange: true, WrongContentRangeCount: 2}, func(a answer) bool {
			return a.Header.Get("Content-Range") == "bytes 1-9/20"
		}},
		"CorruptBlob": {registrytest.Quirks{CorruptBlob: true, CorruptBlobCount: 2}, func(a answer) bool {
			return a.body == "the bytes!" // the last one was a space
		}},
		"CutBodyAfter": {registrytest.Quirks{CutBodyAfter: 3, CutBodyCount: 2}, func(a answer) bool {
			return a.body == "the" && a.err == io.ErrUnexpectedEOF
		}},
		"BlobStatus": {registrytest.Quirks{BlobStatus: 429, BlobStatusCount: 2, RetryAfter: 3600}, func(a answer) bool {
			return a.StatusCode == 429 && a.Header.Get("Retry-After") == "3600"
		}},
		"Status": {registrytest.Quirks{Status: 503, StatusCount: 2}, func(a answer) bool {
			return a.StatusCode == 503 && a.Header.Get("Retry-After") == ""
		}},
	} {
		t.Run(name, func(t *testing.T) {
			server, blob := start(t)
			server.SetQuirks(c.quirks)
			for i := range 4 {
				a := get(t, blob, "Range", "bytes=0-9")
				assert.Equal(t, i < 2, c.faulty(a), "request %d: %+v", i, a)
			}
			assert.Equal(t, 2, server.Happened(name))
		})
	}
}

func TestRetryAfterIsWatched(t *testing.T) {
	server, blob := start(t)
	server.SetQuirks(registrytest.Quirks{BlobStatus: 429, BlobStatusCount: 1, RetryAfter: 3600})
	require.Equal(t, 429, get(t, blob).StatusCode)
	assert.Zero(t, server.TooEarly())
	require.Equal(t, content, get(t, blob).body, "it is served all the same")
	assert.Equal(t, 1, server.TooEarly())
}

// What never ends is ended by the client.
func TestStallAndNoAnswer(t *testing.T) {
	server, blob := start(t)
	stalled := make(chan struct{})
	server.SetQuirks(registrytest.Quirks{Stall: true, StallCount: 1, Stalled: stalled, NoAnswer: true, NoAnswerCount: 1})
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(ctx context.Context) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, blob, nil)
		require.NoError(t, err)
		return client.Do(req)
	}
	ctx, giveUp := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := ask(ctx)
		done <- err
	}()
	for server.Happened("NoAnswer") == 0 {
		runtime.Gosched()
	}
	giveUp()
	require.ErrorIs(t, <-done, context.Canceled)

	resp, err := ask(t.Context())
	require.NoError(t, err)
	<-stalled
	half := make([]byte, len(content)/2)
	_, err = io.ReadFull(resp.Body, half)
	require.NoError(t, err)
	assert.Equal(t, content[:len(content)/2], string(half))
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, 1, server.Happened("Stall"))
	assert.Equal(t, content, get(t, blob).body)
}

func TestIgnoreRange(t *testing.T) {
	server, blob := start(t)
	server.SetQuirks(registrytest.Quirks{IgnoreRange: true})
	a := get(t, blob, "Range", "bytes=4-8")
	assert.Equal(t, http.StatusOK, a.StatusCode)
	assert.Equal(t, content, a.body)
}

func TestContentDigest(t *testing.T) {
	server := registrytest.New(t)
	server.PushManifest("image:tag", []byte("{}"), types.OCIManifestSchema1)
	manifest := "http://" + server.Host() + "/v2/image/manifests/tag"
	assert.NotEmpty(t, get(t, manifest).Header.Get("Docker-Content-Digest"))
	server.SetQuirks(registrytest.Quirks{NoContentDigest: true})
	assert.Empty(t, get(t, manifest).Header.Get("Docker-Content-Digest"))
}

func TestLoginStatus(t *testing.T) {
	server, _ := start(t)
	server.SetQuirks(registrytest.Quirks{LoginStatus: 503, LoginStatusCount: 1})
	assert.Equal(t, 503, get(t, "http://"+server.Host()+"/v2/").StatusCode)
	assert.Equal(t, 200, get(t, "http://"+server.Host()+"/v2/").StatusCode)
}
