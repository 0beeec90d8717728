package registrytest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// serve has a server answer without a network, so that it may be by a test's clock.
func serve(s *Server, path, ranges string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if ranges != "" {
		r.Header.Set("Range", ranges)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// layer pushes an image and returns the path of its layer.
func layer(t *testing.T, s *Server) string {
	t.Helper()
	image, err := random.Image(1000, 1)
	require.NoError(t, err)
	_, err = s.Push("image:tag", image)
	require.NoError(t, err)
	layers, err := image.Layers()
	require.NoError(t, err)
	digest, err := layers[0].Digest()
	require.NoError(t, err)
	return "/v2/image/blobs/" + digest.String()
}

// Three requests are served at once, then one each half a second, whatever is asked for.
func TestRequestsPerSecond(t *testing.T) {
	s := New(t)
	path := layer(t, s)
	now := time.Now()
	q := Quirks{RequestsPerSecond: 2, RequestBurst: 3, Now: func() time.Time { return now }}
	ask := func(want int, retryAfter string) {
		t.Helper()
		got := serve(s, path, "bytes=0-9")
		assert.Equal(t, want, got.Code)
		assert.Equal(t, retryAfter, got.Header().Get("Retry-After"))
	}
	s.SetQuirks(q)
	assert.Equal(t, http.StatusOK, serve(s, "/v2/", "").Code)
	assert.Equal(t, http.StatusOK, serve(s, "/v2/image/manifests/tag", "").Code)
	ask(http.StatusPartialContent, "")
	assert.Equal(t, http.StatusTooManyRequests, serve(s, "/v2/", "").Code, "the login counts")
	assert.NotEqual(t, http.StatusTooManyRequests, serve(s, "/elsewhere", "").Code)
	now = now.Add(499 * time.Millisecond)
	ask(http.StatusTooManyRequests, "1")
	now = now.Add(time.Millisecond)
	ask(http.StatusPartialContent, "")
	ask(http.StatusTooManyRequests, "1")
	assert.Equal(t, 3, s.Happened("RequestsPerSecond"))
	now = now.Add(time.Hour)
	for range 3 {
		ask(http.StatusPartialContent, "")
	}
	ask(http.StatusTooManyRequests, "1")

	q.CountRefused, q.RetryAfter = true, 7
	s.SetQuirks(q)
	for range 3 {
		ask(http.StatusPartialContent, "")
	}
	for range 20 {
		ask(http.StatusTooManyRequests, "7")
	}
	now = now.Add(1900 * time.Millisecond)
	ask(http.StatusTooManyRequests, "7")
	now = now.Add(2 * time.Second)
	ask(http.StatusPartialContent, "")
}

// The message of a refusal may have the delay, as ghcr.io's has.
func TestRetryAfterText(t *testing.T) {
	s := New(t)
	now := time.Now()
	q := Quirks{RequestsPerSecond: 4, RetryAfterText: "retry-after: %s, allowed: 4/second", Now: func() time.Time { return now }}
	s.SetQuirks(q)
	serve(s, "/v2/", "")
	got := serve(s, "/v2/", "")
	assert.Equal(t, http.StatusTooManyRequests, got.Code)
	assert.Contains(t, got.Body.String(), `"message":"retry-after: 250ms, allowed: 4/second"`)
	assert.Empty(t, got.Header().Get("Retry-After"))
	s.SetQuirks(Quirks{Status: 503, RetryAfterText: "try again in 2m"})
	assert.Contains(t, serve(s, "/v2/image/manifests/tag", "").Body.String(), "try again in 2m")
}

// A range is refused by its header, and the whole blob is served.
func TestRangeStatus(t *testing.T) {
	s := New(t)
	path := layer(t, s)
	for _, status := range []int{400, 403, 416, 501} {
		s.SetQuirks(Quirks{RangeStatus: status, RangeStatusCount: 2})
		assert.Equal(t, status, serve(s, path, "bytes=0-9").Code)
		assert.Equal(t, http.StatusOK, serve(s, path, "").Code)
		assert.Equal(t, status, serve(s, path, "bytes=0-").Code)
		assert.Equal(t, 2, s.Happened("RangeStatus"))
		assert.Equal(t, http.StatusPartialContent, serve(s, path, "bytes=0-9").Code)
	}
}

// A blob begins late, but no later than its client is there.
func TestFirstByteDelay(t *testing.T) {
	s := New(t)
	path := layer(t, s)
	s.SetQuirks(Quirks{FirstByteDelay: 20 * time.Second, FirstByteDelayCount: 2})
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		assert.Equal(t, http.StatusOK, serve(s, path, "").Code)
		assert.Equal(t, 20*time.Second, time.Since(begin))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.PanicsWithValue(t, http.ErrAbortHandler, func() {
			s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
		})
		assert.Equal(t, 21*time.Second, time.Since(begin))
		assert.Equal(t, http.StatusOK, serve(s, path, "").Code)
		assert.Equal(t, 21*time.Second, time.Since(begin), "twice is enough")
	})
	assert.Equal(t, 2, s.Happened("FirstByteDelay"))
}
