package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const testRef = "308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image:name-2f5e"

// blobs is a source in memory.
type blobs map[v1.Hash][]byte

func (b blobs) ReadRange(_ context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	blob, ok := b[digest]
	if !ok {
		return nil, fmt.Errorf("no blob %s", digest)
	}
	return io.NopCloser(bytes.NewReader(blob[offset : offset+length])), nil
}

// add stores content as a layer.
func (b blobs) add(content []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: types.DockerLayer, Digest: sha256Of(content), Size: int64(len(content))}
	b[d.Digest] = content
	return d
}

// noise returns n bytes that are the same for the same seed.
func noise(seed byte, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(p) // never fails
	return p
}

// pair makes a manifest and a config that agree. The layers are not tar files:
// this package never looks into them.
func pair(t testing.TB, layers ...v1.Descriptor) (v1.Manifest, []byte) {
	t.Helper()
	diffIDs := make([]v1.Hash, len(layers))
	for i := range layers {
		diffIDs[i] = sha256Of([]byte{byte(i)})
	}
	config := fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":%s}}`, marshal(t, diffIDs))
	return v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.DockerManifestSchema2,
		Config:        v1.Descriptor{MediaType: types.DockerConfigJSON, Digest: sha256Of(config), Size: int64(len(config))},
		Layers:        append([]v1.Descriptor{}, layers...),
	}, config
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	require.NoError(t, err)
	return raw
}

func testImage(t testing.TB, layers ...v1.Descriptor) *Image {
	t.Helper()
	manifest, config := pair(t, layers...)
	img, err := NewImage(testRef, marshal(t, manifest), config)
	require.NoError(t, err)
	return img
}

func TestNewImage(t *testing.T) {
	src := blobs{}
	layer := src.add([]byte("layer"))
	manifest, config := pair(t, layer, layer)
	raw := marshal(t, manifest)

	img, err := NewImage(testRef, raw, config)
	require.NoError(t, err)
	assert.Equal(t, testRef, img.Reference())
	assert.Equal(t, sha256Of(raw), img.Digest())
	assert.Equal(t, raw, img.Manifest())
	assert.Equal(t, config, img.Config())
	assert.Equal(t, []v1.Descriptor{layer, layer}, img.Layers())

	short, err := NewImage("debian:12", raw, config)
	require.NoError(t, err)
	assert.Equal(t, "docker.io/library/debian:12", short.Reference())
}

// An image must not change under those who planned with it.
func TestImageIsImmutable(t *testing.T) {
	img := testImage(t, blobs{}.add([]byte("layer")))
	want := img.Digest()
	clear(img.Manifest())
	clear(img.Config())
	img.Layers()[0].Size = 99
	assert.Equal(t, want, sha256Of(img.Manifest()))
	assert.Equal(t, int64(5), img.Layers()[0].Size)
}

func TestNewImageRefuses(t *testing.T) {
	layer := blobs{}.add([]byte("layer"))
	for name, c := range map[string]struct {
		ref    string
		change func(m *v1.Manifest)
		reason string
	}{
		"no tag":              {ref: "ghcr.io/a/b", reason: "has no tag"},
		"digest":              {ref: "ghcr.io/a/b:t@" + sha256Of(nil).String(), reason: "has a digest"},
		"malformed reference": {ref: "ghcr.io/a/../b:t", reason: "reference"},
		"empty reference":     {ref: "-", reason: "reference"},
		"schema 1":            {change: func(m *v1.Manifest) { m.SchemaVersion = 1 }, reason: "schema version 1"},
		"index":               {change: func(m *v1.Manifest) { m.MediaType = types.OCIImageIndex }, reason: "an index needs a platform"},
		"artifact":            {change: func(m *v1.Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" }, reason: "an artifact"},
		"config digest":       {change: func(m *v1.Manifest) { m.Config.Digest = sha256Of(nil) }, reason: "declared is sha256:e3b0"},
		"config size":         {change: func(m *v1.Manifest) { m.Config.Size++ }, reason: "declared are"},
		"layer count":         {change: func(m *v1.Manifest) { m.Layers = append(m.Layers, layer) }, reason: "lists 1 layers, the manifest 2"},
		"foreign layer":       {change: func(m *v1.Manifest) { m.Layers[0].MediaType = types.DockerForeignLayer }, reason: "may not be distributed"},
		"restricted zstd": {change: func(m *v1.Manifest) {
			m.Layers[0].MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
		}, reason: "may not be distributed"},
		"encrypted layer":      {change: func(m *v1.Manifest) { m.Layers[0].MediaType += "+encrypted" }, reason: "not a layer that engines load"},
		"sha512 layer":         {change: func(m *v1.Manifest) { m.Layers[0].Digest = v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("a", 128)} }, reason: "not sha256"},
		"negative size":        {change: func(m *v1.Manifest) { m.Layers[0].Size = -1 }, reason: "not plausible"},
		"size beyond any disk": {change: func(m *v1.Manifest) { m.Layers[0].Size = 1 << 62 }, reason: "not plausible"},
	} {
		t.Run(name, func(t *testing.T) {
			manifest, config := pair(t, layer)
			if c.change != nil {
				c.change(&manifest)
			}
			ref := c.ref
			if ref == "" {
				ref = testRef
			}
			img, err := NewImage(ref, marshal(t, manifest), config)
			require.ErrorIs(t, err, ErrImage)
			assert.ErrorContains(t, err, c.reason)
			assert.Nil(t, img)
		})
	}

	manifest, config := pair(t, layer)
	_, err := NewImage(testRef, append(marshal(t, manifest), bytes.Repeat([]byte(" "), maxManifest)...), config)
	require.ErrorContains(t, err, "more than 4194304")

	// A layer that is the config: its name would be in the archive twice.
	asLayer := manifest.Config
	asLayer.MediaType = types.DockerLayer
	manifest.Layers = []v1.Descriptor{asLayer}
	_, err = NewImage(testRef, marshal(t, manifest), config)
	require.ErrorContains(t, err, "two entries of one name")

	other := layer
	other.Size++
	manifest, config = pair(t, layer, other)
	_, err = NewImage(testRef, marshal(t, manifest), config)
	require.ErrorIs(t, err, ErrImage)
	assert.ErrorContains(t, err, "is declared with 5 and with 6 bytes")

	_, config = pair(t)
	for _, raw := range []string{"", "null", "[]", "<html>", `{"schemaVersion":2}`, `{"schemaVersion":"2"}`} {
		_, err := NewImage(testRef, []byte(raw), config)
		require.ErrorIs(t, err, ErrImage, raw)
	}
}

func FuzzNewImage(f *testing.F) {
	manifest, config := pair(f, blobs{}.add([]byte("layer")))
	f.Add(testRef, marshal(f, manifest), config)
	f.Add("debian:12", []byte(`{"schemaVersion":1}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, ref string, manifest, config []byte) {
		img, err := NewImage(ref, manifest, config)
		if err != nil {
			require.ErrorIs(t, err, ErrImage)
			return
		}
		layout, err := NewLayout(img, Provenance{})
		require.NoError(t, err)
		require.Positive(t, layout.Size())
	})
}
