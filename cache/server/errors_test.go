package server

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNothingIsWritten(t *testing.T) {
	s := newShelf(t)
	file := s.stock("image", testRef, "a")
	c := connect(s)
	for _, path := range []string{"/v2/", "/v2/registry.test/team/image/manifests/v1", "/v2/registry.test/team/image/blobs/uploads/", "/v2/registry.test/team/image/blobs/" + file.Image.ConfigDigest().String(), "/", "/v2/_catalog"} {
		for _, method := range []string{http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodOptions, "PROPFIND"} {
			got := c.do(method, path)
			requireRefusal(t, got, http.StatusMethodNotAllowed, "UNSUPPORTED")
			assert.Equal(t, "GET, HEAD", got.Header.Get("Allow"))
		}
	}
	c.requireImage(file, "registry.test/team/image", "v1")
	assert.Empty(t, c.reported.take())
}

func TestOtherPaths(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a")
	c := connect(s)
	for _, path := range []string{
		"/", "/v1/", "/v2x", "/v3/", "/V2/", "/image.tar", "/debug/pprof/",
		"/v2/registry.test/team/image", "/v2/registry.test/team/image/", "/v2/registry.test/team/image/manifests", "/v2/manifests/v1", "/v2/tags/list",
		"/v2/_catalog/", "/v2/registry.test/team/image/tags", "/v2/registry.test/team/image/tags/list/", "/v2/registry.test/team/image/referrers", "/v2/referrers/" + absent,
		"/healthz/", "/healthz/x", "/v2/healthz", "/v2healthz", "/Healthz",
	} {
		c.requireRefused(http.StatusNotFound, "UNSUPPORTED", path)
	}
	assert.Empty(t, c.reported.take())
}

// No path leads out of what was found in the directory, and none is an error of the
// directory's.
func TestPathTricks(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a")
	const secret = "a secret beside the directory"
	parent := filepath.Dir(s.dir.Path())
	for _, name := range []string{"secret", "v1", absent} {
		require.NoError(t, os.WriteFile(filepath.Join(parent, name), []byte(secret), 0o644))
		require.NoError(t, os.WriteFile(s.path(name), []byte(secret), 0o644))
	}
	var reported failures
	h := New(s.dir, &Options{Failed: reported.add})
	c := &client{t: t, host: serve(t, h)}
	long := strings.Repeat("a/", 100_000)
	for _, trick := range []string{
		"/../secret", "/v2/../../secret", "/v2/..%2f..%2fsecret", "/v2/%2e%2e/%2e%2e/secret",
		"/v2/registry.test/team/image/manifests/../../../../secret", "/v2/registry.test/team/image/manifests/%2e%2e%2fsecret", "/v2/registry.test/team/image/manifests/..",
		"/v2/registry.test/team/image/manifests/secret", "/v2/registry.test/team/image/manifests/image.tar", "/v2/../manifests/secret", "/v2/" + url.PathEscape(parent) + "/manifests/v1",
		"/v2//manifests/v1", "/v2///manifests//v1", "//v2/registry.test/team/image/manifests/v1", "/v2//team/image/manifests/v1", "/v2/registry.test/team//image/manifests/v1",
		"/v2/registry.test/team/image//manifests/v1", "/v2/registry.test/team/image/manifests//v1", "/v2/./team/image/manifests/v1", "/v2/registry.test/team/image/./manifests/v1", "/v2/x/../team/image/manifests/v1",
		"/v2/registry.test/team/image/manifests/v1%00", "/v2/registry.test/team/image%00/manifests/v1", "/v2/%00", "/v2/registry.test/team/image/manifests/v1/", "/v2/registry.test/team/image/manifests/v1%0d%0aX-Own:%20x",
		"/v2/registry.test/team/image/blobs/../../../secret", "/v2/registry.test/team/image/blobs/" + absent, "/v2/../blobs/" + absent, "/v2/./blobs/" + absent, "/v2/..%2fdir/blobs/" + absent,
		"/v2/registry.test/team/image/blobs/sha256:../../secret", "/v2/registry.test/team/image/blobs/sha256:%00", "/v2/registry.test/team/image/blobs/sha256%2f" + absent[7:],
		"/v2/../tags/list", "/v2/" + long + "manifests/v1", "/v2/registry.test/team/image/manifests/" + long, "/v2/registry.test/team/image/blobs/sha256:" + long, "/v2/%ff%fe/manifests/%ff",
		"/v2/registry.test/team/image/manifests/v1?ns=../..", "/v2/registry.test/team/image/manifests/v1?ns=%00", "/v2/registry.test/team/image/tags/list?ns=" + long,
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			got := c.do(method, trick)
			require.NoError(t, got.err)
			require.GreaterOrEqual(t, got.StatusCode, 400, trick)
			require.Less(t, got.StatusCode, 500, trick)
			require.NotContains(t, string(got.body), secret, trick)
			require.NotContains(t, string(got.body), s.dir.Path(), trick)
			require.Empty(t, got.Header.Get("X-Own"), trick)
			if method == http.MethodGet {
				require.Equal(t, byte('{'), got.body[0], trick)
			}
		}
	}
	assert.Empty(t, reported.take())
}

func TestRefuse(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		body   string
	}{
		{errReadOnly, 405, `{"errors":[{"code":"UNSUPPORTED","message":"this registry is read-only: it serves what a cache directory holds"}]}`},
		{badDigest("x"), 400, `{"errors":[{"code":"DIGEST_INVALID","message":"\"x\" is not a digest"}]}`},
		{fmt.Errorf("wrapped: %w", unknownName("a/b")), 404, `{"errors":[{"code":"NAME_UNKNOWN","message":"no tarball in the directory holds an image of the repository \"a/b\""}]}`},
		{errors.New("open /secret/path: no"), 500, `{"errors":[{"code":"UNKNOWN","message":"the cache directory cannot be read"}]}`},
	} {
		w := httptest.NewRecorder()
		refuse(w, tt.err)
		assert.Equal(t, tt.status, w.Code)
		assert.Equal(t, tt.body, w.Body.String())
		assert.Equal(t, fmt.Sprint(len(tt.body)), w.Header().Get("Content-Length"))
	}
}
