package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What refers to a digest is listed, if it is stocked; an answer is never 404.
func TestReferrers(t *testing.T) {
	amd := newBuild(t, "linux/amd64", "a")
	index := indexOf(t, "index", amd)
	about := func(subject []byte, layer, rest string) build {
		b := newBuild(t, "linux/amd64", layer)
		b.manifest = bytes.Replace(b.manifest, []byte("{"), fmt.Appendf(nil, `{"subject":{"digest":%q,"size":1,"mediaType":"x"},%s`, sha256Of(subject), rest), 1)
		return b
	}
	s := newShelf(t)
	s.put("image", testRef, 1, amd, index)
	typed := about(amd.manifest, "b", `"annotations":{"a":"b"},`)
	s.put("one", "registry.test/team/image:one", 1, typed)
	s.put("two", "registry.test/team/image:two", 1, typed)
	s.put("index", "registry.test/team/image:index", 1, about(index, "c", ""))
	s.put("elsewhere", "registry.test/team/other:v1", 1, about(amd.manifest, "d", ""))
	c := connect(s)
	list := func(path string) v1.IndexManifest {
		got := c.get(path)
		require.Equal(t, http.StatusOK, got.StatusCode, "%s", got.body)
		assert.Equal(t, string(types.OCIImageIndex), got.Header.Get("Content-Type"))
		filters := ""
		if strings.Contains(path, "artifactType=") {
			filters = "artifactType"
		}
		assert.Equal(t, filters, got.Header.Get("OCI-Filters-Applied"))
		var index v1.IndexManifest
		require.NoError(t, json.Unmarshal(got.body, &index))
		assert.EqualValues(t, 2, index.SchemaVersion)
		assert.Equal(t, types.OCIImageIndex, index.MediaType)
		assert.NotNil(t, index.Manifests, "not null")
		assert.Empty(t, c.do(http.MethodHead, path).body)
		return index
	}
	subject := team + "referrers/" + sha256Of(amd.manifest)
	found := list(subject).Manifests
	require.Len(t, found, 1)
	assert.Equal(t, sha256Of(typed.manifest), found[0].Digest.String())
	assert.EqualValues(t, len(typed.manifest), found[0].Size)
	assert.Equal(t, types.DockerManifestSchema2, found[0].MediaType)
	assert.Equal(t, string(types.DockerConfigJSON), found[0].ArtifactType)
	assert.Equal(t, map[string]string{"a": "b"}, found[0].Annotations)
	assert.Equal(t, found, list(subject+"?artifactType="+string(types.DockerConfigJSON)).Manifests)
	assert.Equal(t, found, list(subject+"?artifactType="+url.QueryEscape(string(types.DockerConfigJSON))).Manifests)
	assert.Empty(t, list(subject+"?artifactType=application/vnd.example").Manifests)
	assert.Len(t, list(team+"referrers/"+sha256Of(index)).Manifests, 1)
	for _, path := range []string{
		team + "referrers/" + absent, team + "referrers/sha512:" + strings.Repeat("0", 128), "/v2/registry.test/team/none/referrers/" + sha256Of(amd.manifest),
		"/v2/team/image/referrers/" + sha256Of(amd.manifest), "/v2/team/image/referrers/" + sha256Of(amd.manifest) + "?ns=other.test",
	} {
		assert.Empty(t, list(path).Manifests, path)
	}
	assert.Len(t, list("/v2/team/image/referrers/"+sha256Of(amd.manifest)+"?ns=registry.test").Manifests, 1)
	for _, bad := range []string{"v1", "sha256:12", "sha256:" + absent, "", "sha512:00", "md5:00"} {
		c.requireRefused(http.StatusBadRequest, "DIGEST_INVALID", team+"referrers/"+bad)
	}
	// A client that others have written.
	repository, err := name.NewRepository(c.host + "/registry.test/team/image")
	require.NoError(t, err)
	got, err := remote.Referrers(repository.Digest(sha256Of(amd.manifest)))
	require.NoError(t, err)
	manifest, err := got.IndexManifest()
	require.NoError(t, err)
	assert.Len(t, manifest.Manifests, 1)
	assert.Empty(t, c.reported.take())
}

// What has a digest by which nothing is stocked is unknown, not wrong.
func TestOtherAlgorithm(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a")
	c := connect(s)
	digest := "sha512:" + strings.Repeat("ab", 64)
	c.requireRefused(http.StatusNotFound, "MANIFEST_UNKNOWN", team+"manifests/"+digest)
	c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", team+"blobs/"+digest)
	for _, bad := range []string{digest + "0", strings.ToUpper(digest), "sha512:" + strings.Repeat("xy", 64)} {
		c.requireRefused(http.StatusBadRequest, "DIGEST_INVALID", team+"blobs/"+bad)
	}
}
