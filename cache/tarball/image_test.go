package tarball

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/internal/imagespec"
)

func testImage(t testing.TB, layers ...v1.Descriptor) *Image {
	t.Helper()
	manifest, config := cachetest.Pair(layers...)
	img, err := NewImage(cachetest.Ref, cachetest.Marshal(manifest), config)
	require.NoError(t, err)
	return img
}

func TestNewImage(t *testing.T) {
	src := cachetest.Blobs{}
	layer := src.Add([]byte("layer"))
	manifest, config := cachetest.Pair(layer, layer)
	raw := cachetest.Marshal(manifest)

	img, err := NewImage(cachetest.Ref, raw, config)
	require.NoError(t, err)
	assert.Equal(t, cachetest.Ref, img.Reference())
	assert.Equal(t, imagespec.DigestOf(raw), img.Digest())
	assert.Equal(t, raw, img.Manifest())
	assert.Equal(t, config, img.Config())
	assert.Equal(t, []v1.Descriptor{layer, layer}, img.Layers())

	short, err := NewImage("debian:12", raw, config)
	require.NoError(t, err)
	assert.Equal(t, "docker.io/library/debian:12", short.Reference())
}

// An image does not change when a caller changes what it returned.
func TestImageIsImmutable(t *testing.T) {
	img := testImage(t, cachetest.Blobs{}.Add([]byte("layer")))
	want := img.Digest()
	clear(img.Manifest())
	clear(img.Config())
	img.Layers()[0].Size = 99
	assert.Equal(t, want, imagespec.DigestOf(img.Manifest()))
	assert.Equal(t, int64(5), img.Layers()[0].Size)
}

// Types and configs that are not as the specification has them, but that engines take.
func TestNewImageTakes(t *testing.T) {
	layer := cachetest.Blobs{}.Add([]byte("layer"))
	for _, mediaType := range []types.MediaType{"application/octet-stream", "application/json", "text/html", "", "application/x-unknown"} {
		manifest, config := cachetest.Pair(layer)
		manifest.Config.MediaType = mediaType
		img, err := NewImage(cachetest.Ref, cachetest.Marshal(manifest), config)
		require.NoError(t, err, mediaType)
		assert.Equal(t, cachetest.Marshal(manifest), img.Manifest())
	}
	for _, mediaType := range []types.MediaType{"application/octet-stream", "application/vnd.docker.image.rootfs.diff.tar.gz", "application/vnd.oci.image.layer.v1.tar+xz", "application/x-gzip", ""} {
		manifest, config := cachetest.Pair(layer)
		manifest.Layers[0].MediaType = mediaType
		img, err := NewImage(cachetest.Ref, cachetest.Marshal(manifest), config)
		require.NoError(t, err, mediaType)
		assert.Equal(t, mediaType, img.Layers()[0].MediaType)
	}
	for _, more := range []string{`"config":{"Entrypoint":"sh -c x"}`, `"config":{"Cmd":"x","Env":null,"ExposedPorts":[80]}`, `"created":"?"`, `"history":{}`, `"config":7`} {
		manifest, config := cachetest.Pair(layer)
		config = []byte(strings.TrimSuffix(string(config), "}") + "," + more + "}")
		manifest.Config.Digest, manifest.Config.Size = imagespec.DigestOf(config), int64(len(config))
		img, err := NewImage(cachetest.Ref, cachetest.Marshal(manifest), config)
		require.NoError(t, err, more)
		assert.Equal(t, config, img.Config())
		assert.Equal(t, "linux/amd64", img.Platform().String())
		assert.Len(t, img.DiffIDs(), 1)
	}
	many := slices.Repeat([]v1.Descriptor{layer}, 500)
	manifest, config := cachetest.Pair(many...)
	_, err := NewImage(cachetest.Ref, cachetest.Marshal(manifest), config)
	require.NoError(t, err, "as many as Linux' overlay file system takes")
}

func TestNewImageRefuses(t *testing.T) {
	layer := cachetest.Blobs{}.Add([]byte("layer"))
	for name, c := range map[string]struct {
		ref    string
		change func(m *v1.Manifest)
		reason string
	}{
		"no tag":              {ref: "ghcr.io/a/b", reason: "has no tag"},
		"digest":              {ref: "ghcr.io/a/b:t@" + imagespec.DigestOf(nil).String(), reason: "has a digest"},
		"malformed reference": {ref: "ghcr.io/a/../b:t", reason: "reference"},
		"empty reference":     {ref: "-", reason: "reference"},
		"schema 1":            {change: func(m *v1.Manifest) { m.SchemaVersion = 1 }, reason: "schema version 1"},
		"index":               {change: func(m *v1.Manifest) { m.MediaType = types.OCIImageIndex }, reason: "an index needs a platform"},
		"artifact":            {change: func(m *v1.Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" }, reason: "an artifact"},
		"config digest":       {change: func(m *v1.Manifest) { m.Config.Digest = imagespec.DigestOf(nil) }, reason: "declared is sha256:e3b0"},
		"config size":         {change: func(m *v1.Manifest) { m.Config.Size++ }, reason: "declared are"},
		"layer count":         {change: func(m *v1.Manifest) { m.Layers = append(m.Layers, layer) }, reason: "lists 1 layers, the manifest 2"},
		"foreign layer":       {change: func(m *v1.Manifest) { m.Layers[0].MediaType = types.DockerForeignLayer }, reason: "may not be distributed"},
		"restricted zstd": {change: func(m *v1.Manifest) {
			m.Layers[0].MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
		}, reason: "may not be distributed"},
		"sha512 config":        {change: func(m *v1.Manifest) { m.Config.Digest = v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("a", 128)} }, reason: "not sha256: other algorithms are not supported"},
		"artifact type":        {change: func(m *v1.Manifest) { m.ArtifactType = "application/vnd.example" }, reason: "an artifact, not a container image"},
		"cosign signature":     {change: func(m *v1.Manifest) { m.Layers[0].MediaType = "application/vnd.dev.cosign.simplesigning.v1+json" }, reason: "an artifact, not a container image"},
		"attestation":          {change: func(m *v1.Manifest) { m.Layers[0].MediaType = "application/vnd.in-toto+json" }, reason: "an artifact, not a container image"},
		"empty artifact":       {change: func(m *v1.Manifest) { m.Config.MediaType = "application/vnd.oci.empty.v1+json" }, reason: "an artifact, not a container image"},
		"20,000 layers":        {change: func(m *v1.Manifest) { m.Layers = slices.Repeat(m.Layers, 20_000) }, reason: "it has 20000 layers, more than 500"},
		"encrypted layer":      {change: func(m *v1.Manifest) { m.Layers[0].MediaType += "+encrypted" }, reason: "is encrypted"},
		"sha512 layer":         {change: func(m *v1.Manifest) { m.Layers[0].Digest = v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("a", 128)} }, reason: "not sha256"},
		"negative size":        {change: func(m *v1.Manifest) { m.Layers[0].Size = -1 }, reason: "its size is negative: -1 bytes"},
		"size beyond any disk": {change: func(m *v1.Manifest) { m.Layers[0].Size = 1 << 62 }, reason: "not plausible"},
	} {
		t.Run(name, func(t *testing.T) {
			manifest, config := cachetest.Pair(layer)
			if c.change != nil {
				c.change(&manifest)
			}
			ref := c.ref
			if ref == "" {
				ref = cachetest.Ref
			}
			img, err := NewImage(ref, cachetest.Marshal(manifest), config)
			require.ErrorIs(t, err, ErrInvalidImage)
			assert.ErrorContains(t, err, c.reason)
			assert.Nil(t, img)
		})
	}

	manifest, config := cachetest.Pair(layer)
	_, err := NewImage(cachetest.Ref, append(cachetest.Marshal(manifest), bytes.Repeat([]byte(" "), maxManifest)...), config)
	require.ErrorContains(t, err, "more than 4194304")

	// A layer that is the config: its name would be in the archive twice.
	asLayer := manifest.Config
	asLayer.MediaType = types.DockerLayer
	manifest.Layers = []v1.Descriptor{asLayer}
	_, err = NewImage(cachetest.Ref, cachetest.Marshal(manifest), config)
	require.ErrorContains(t, err, "two entries of one name")

	other := layer
	other.Size++
	manifest, config = cachetest.Pair(layer, other)
	_, err = NewImage(cachetest.Ref, cachetest.Marshal(manifest), config)
	require.ErrorIs(t, err, ErrInvalidImage)
	assert.ErrorContains(t, err, "is declared with 5 and with 6 bytes")

	// What is read in two ways.
	manifest, config = cachetest.Pair(layer)
	good := string(cachetest.Marshal(manifest))
	for _, more := range []string{`"manifests":[]`, `"fsLayers":[]`, `"Layers":[]`, `"layers":[]`, `"CONFIG":{}`} {
		_, err := NewImage(cachetest.Ref, []byte(strings.TrimSuffix(good, "}")+","+more+"}"), config)
		require.ErrorIs(t, err, ErrInvalidImage, more)
		require.ErrorContains(t, err, "ambiguous", more)
	}

	_, config = cachetest.Pair()
	for _, raw := range []string{"", "null", "[]", "<html>", `{"schemaVersion":2}`, `{"schemaVersion":"2"}`} {
		_, err := NewImage(cachetest.Ref, []byte(raw), config)
		require.ErrorIs(t, err, ErrInvalidImage, raw)
	}
}

func FuzzNewImage(f *testing.F) {
	manifest, config := cachetest.Pair(cachetest.Blobs{}.Add([]byte("layer")))
	f.Add(cachetest.Ref, cachetest.Marshal(manifest), config)
	f.Add("debian:12", []byte(`{"schemaVersion":1}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, ref string, manifest, config []byte) {
		img, err := NewImage(ref, manifest, config)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalidImage)
			return
		}
		layout, err := NewLayout(img, Provenance{})
		require.NoError(t, err)
		require.Positive(t, layout.Size())
	})
}
