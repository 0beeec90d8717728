package server

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
)

func sha256Of(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// A manifest is served byte by byte as it is, with all that clients go by.
func TestManifest(t *testing.T) {
	s := newShelf(t)
	file := s.stock("image", testRef, "a", "b")
	made, _ := makeImage(t, "a", "b")
	want, err := made.RawManifest()
	require.NoError(t, err)
	digest := sha256Of(want)
	require.Equal(t, digest, file.Image.Digest().String())
	c := connect(s)
	for _, ref := range []string{"v1", digest} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			path := "/v2/registry.test/team/image/manifests/" + ref
			got := c.do(method, path)
			require.Equal(t, http.StatusOK, got.StatusCode)
			require.NoError(t, got.err)
			assert.Equal(t, string(types.DockerManifestSchema2), got.Header.Get("Content-Type"))
			assert.Equal(t, digest, got.Header.Get("Docker-Content-Digest"))
			assert.Equal(t, strconv.Itoa(len(want)), got.Header.Get("Content-Length"))
			assert.Equal(t, `"`+digest+`"`, got.Header.Get("Etag"))
			assert.Equal(t, "registry/2.0", got.Header.Get("Docker-Distribution-Api-Version"))
			if method == http.MethodGet {
				assert.Equal(t, string(want), string(got.body))
			} else {
				assert.Empty(t, got.body)
			}
			got = c.do(method, path, `If-None-Match: "`+digest+`"`)
			assert.Equal(t, http.StatusNotModified, got.StatusCode)
			assert.Empty(t, got.body)
			got = c.do(method, path, `If-None-Match: "`+absent+`"`)
			assert.Equal(t, http.StatusOK, got.StatusCode)
		}
	}
	// To registries a manifest is a blob as well.
	c.requireServed(want, "/v2/registry.test/team/image/blobs/"+digest)
	assert.Empty(t, c.reported.take())
}

// The media type is the manifest's, and OCI's where that has none.
func TestManifestMediaType(t *testing.T) {
	s := newShelf(t)
	docker, source := makeImage(t, "a")
	oci := mutate.ConfigMediaType(mutate.MediaType(docker, types.OCIManifestSchema1), types.OCIConfigJSON)
	config, err := oci.RawConfigFile()
	require.NoError(t, err)
	raw, err := oci.RawManifest()
	require.NoError(t, err)
	m, err := oci.Manifest()
	require.NoError(t, err)
	silent := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":%q,"size":%d,"digest":%q},"layers":[{"mediaType":%q,"size":%d,"digest":%q}]}`,
		m.Config.MediaType, m.Config.Size, m.Config.Digest, types.OCILayer, m.Layers[0].Size, m.Layers[0].Digest)
	for tag, manifest := range map[string][]byte{"says": raw, "silent": silent} {
		image, err := tarball.NewImage("registry.test/team/image:"+tag, manifest, config)
		require.NoError(t, err)
		_, err = s.dir.Put(t.Context(), tag+".tar", image, source, nil)
		require.NoError(t, err)
		c := connect(s)
		c.requireServed(manifest, "/v2/registry.test/team/image/manifests/"+tag)
		assert.Equal(t, string(types.OCIManifestSchema1), c.get("/v2/registry.test/team/image/manifests/"+tag).Header.Get("Content-Type"))
	}
}

// A pull uses a tarball, a look at it does not.
func TestPullMarksTarballAsUsed(t *testing.T) {
	s := newShelf(t)
	file := s.stock("image", testRef, "a")
	s.age("image.tar", 1)
	lastUsed := func() time.Time {
		entries, err := s.dir.List(t.Context())
		require.NoError(t, err)
		require.Len(t, entries, 1)
		return entries[0].LastUsed
	}
	s.unmark("image.tar")
	before := lastUsed()
	c := connect(s)
	for _, ref := range []string{"v1", file.Image.Digest().String()} {
		path := "/v2/registry.test/team/image/manifests/" + ref
		require.Equal(t, http.StatusOK, c.do(http.MethodHead, path).StatusCode)
		require.Equal(t, http.StatusOK, c.get("/v2/registry.test/team/image/tags/list").StatusCode)
		require.Equal(t, before, lastUsed())
		require.Equal(t, http.StatusOK, c.get(path).StatusCode)
		require.True(t, lastUsed().After(before))
		s.unmark("image.tar")
	}
}

func TestManifestIsRefused(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a")
	other := s.stock("other", "registry.test/team/other:v1", "b").Image.Digest().String()
	c := connect(s)
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/registry.test/team/none/manifests/v1")
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/image/manifests/v1")
	c.requireRefused(http.StatusNotFound, "MANIFEST_UNKNOWN", "/v2/registry.test/team/image/manifests/v2")
	c.requireRefused(http.StatusNotFound, "MANIFEST_UNKNOWN", "/v2/registry.test/team/image/manifests/"+absent)
	c.requireRefused(http.StatusNotFound, "MANIFEST_UNKNOWN", "/v2/registry.test/team/image/manifests/"+other)
	c.requireRefused(http.StatusNotFound, "MANIFEST_UNKNOWN", "/v2/registry.test/team/image/manifests/")
	for _, bad := range []string{"sha256:12", "sha256:" + absent, "md5:d41d8cd98f00b204e9800998ecf8427e", ":"} {
		c.requireRefused(http.StatusBadRequest, "DIGEST_INVALID", "/v2/registry.test/team/image/manifests/"+bad)
	}
	got := c.do(http.MethodHead, "/v2/registry.test/team/image/manifests/v2")
	assert.Equal(t, http.StatusNotFound, got.StatusCode)
	assert.Empty(t, got.body)
	assert.Empty(t, c.reported.take(), "none of it is the directory's trouble")
}
