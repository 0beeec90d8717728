package tarball

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/internal/imagespec"
)

// indexOf returns an index that lists what is in digests, by lines that no parser of ours
// would write.
func indexOf(media types.MediaType, digests ...v1.Hash) []byte {
	entries := make([]string, len(digests))
	for i, d := range digests {
		entries[i] = fmt.Sprintf(`{ "digest" : %q, "size": 7, "x-own":[] }`, d)
	}
	return fmt.Appendf(nil, "{\"schemaVersion\":2, \"mediaType\":%q,\n\"manifests\":[%s]}\n", media, strings.Join(entries, ","))
}

var absent = imagespec.DigestOf([]byte("absent"))

// found returns the parts of an image that was found through an index within an index.
func found(src cachetest.Blobs) (manifest, config, inner, outer []byte) {
	layer := src.Add([]byte("layer"))
	m, config := cachetest.Pair(layer, src.Add([]byte("another")), layer)
	manifest = cachetest.Marshal(m)
	inner = indexOf(types.DockerManifestList, absent, imagespec.DigestOf(manifest))
	outer = indexOf(types.OCIImageIndex, imagespec.DigestOf(inner), absent)
	return manifest, config, inner, outer
}

// writtenBytes returns the bytes of an image's tarball.
func writtenBytes(t *testing.T, img *Image, src Source) []byte {
	t.Helper()
	raw, err := os.ReadFile(write(t, img, src, Provenance{Source: "ghcr.io/pytorch/ci-image:name-2f5e", Branch: "main"}))
	require.NoError(t, err)
	return raw
}

func TestIndexesAreKept(t *testing.T) {
	src := cachetest.Blobs{}
	manifest, config, inner, outer := found(src)
	for name, indexes := range map[string][][]byte{"none": nil, "one": {inner}, "nested": {outer, inner}} {
		t.Run(name, func(t *testing.T) {
			img, err := NewImage(cachetest.Ref, manifest, config, indexes...)
			require.NoError(t, err)
			assert.Equal(t, indexes, img.Indexes())
			assert.Equal(t, imagespec.DigestOf(manifest), img.Digest(), "the identity")
			assert.True(t, img.Is(img.Digest()))
			for _, raw := range [][]byte{inner, outer} {
				kept := false
				for _, index := range indexes {
					kept = kept || bytes.Equal(index, raw)
				}
				assert.Equal(t, kept, img.Is(imagespec.DigestOf(raw)))
			}
			assert.False(t, img.Is(absent), "of another platform, though it is listed")
			assert.False(t, img.Is(img.ConfigDigest()))
			assert.False(t, img.Is(v1.Hash{}))

			layout := mustLayout(t, img)
			var names []string
			for _, e := range entriesOf(t, layout) {
				names = append(names, e.Name)
			}
			want := []string{blobPath(img.Digest()), blobPath(img.ConfigDigest())}
			for _, raw := range indexes {
				want = append(want, blobPath(imagespec.DigestOf(raw)))
			}
			assert.Equal(t, append(want, blobPath(img.Layers()[0].Digest), blobPath(img.Layers()[1].Digest)), names[5:])
			raw := writtenBytes(t, img, src)
			opened, err := Read(bytes.NewReader(raw), int64(len(raw)), "it")
			require.NoError(t, err)
			assert.Equal(t, img, opened.Image)
			assert.Equal(t, layout.Size(), opened.Layout.Size())
			require.NoError(t, opened.Verify(t.Context(), nil))
			for _, index := range indexes { // each byte of them is what the layout plans
				wrong := bytes.Replace(raw, index, bytes.Replace(index, []byte("x-own"), []byte("y-own"), 1), 1)
				_, err := Read(bytes.NewReader(wrong), int64(len(wrong)), "it")
				require.ErrorIs(t, err, ErrNotTarball)
			}
			for _, cut := range []int64{layout.Layers()[0].Offset - 1, layout.Layers()[0].Offset - 512, layout.Layers()[0].Offset} {
				_, err := Read(bytes.NewReader(raw[:cut]), cut, "it")
				require.ErrorIs(t, err, ErrNotTarball)
			}
		})
	}
}

// An image without layers may have an index too.
func TestIndexWithoutLayers(t *testing.T) {
	m, config := cachetest.Pair()
	manifest := cachetest.Marshal(m)
	img, err := NewImage(cachetest.Ref, manifest, config, indexOf(types.OCIImageIndex, imagespec.DigestOf(manifest)))
	require.NoError(t, err)
	raw := writtenBytes(t, img, nil)
	opened, err := Read(bytes.NewReader(raw), int64(len(raw)), "it")
	require.NoError(t, err)
	assert.Equal(t, img, opened.Image)
}

// Layers are where extents can be shared, however long an index is.
func TestLayersAreAlignedAfterIndexes(t *testing.T) {
	layer := cachetest.Blobs{}.Add([]byte("layer"))
	m, config := cachetest.Pair(layer)
	manifest := cachetest.Marshal(m)
	for more := 0; more < 9000; more += 511 {
		index := append(indexOf(types.OCIImageIndex, imagespec.DigestOf(manifest)), bytes.Repeat([]byte(" "), more)...)
		img, err := NewImage(cachetest.Ref, manifest, config, index)
		require.NoError(t, err)
		assert.Zero(t, mustLayout(t, img).Layers()[0].Offset%sys.Align)
	}
}

// The image does not change with what it was given, or has returned.
func TestIndexesAreImmutable(t *testing.T) {
	manifest, config, inner, _ := found(cachetest.Blobs{})
	given := bytes.Clone(inner)
	img, err := NewImage(cachetest.Ref, manifest, config, given)
	require.NoError(t, err)
	clear(given)
	clear(img.Indexes()[0])
	assert.Equal(t, [][]byte{inner}, img.Indexes())
}

func TestIndexesAreRefused(t *testing.T) {
	manifest, config, inner, outer := found(cachetest.Blobs{})
	lists := func(rest string) []byte {
		return fmt.Appendf(nil, `{"manifests":[{"digest":%q}]%s}`, imagespec.DigestOf(manifest), rest)
	}
	many := [][]byte{inner}
	for range maxIndexes {
		many = append([][]byte{indexOf(types.OCIImageIndex, imagespec.DigestOf(many[0]))}, many...)
	}
	for name, c := range map[string]struct {
		indexes [][]byte
		reason  string
	}{
		"another manifest's": {[][]byte{indexOf(types.OCIImageIndex, absent)}, "does not list " + imagespec.DigestOf(manifest).String()},
		"innermost first":    {[][]byte{inner, outer}, "does not list"},
		"a gap":              {[][]byte{outer}, "does not list"},
		"twice":              {[][]byte{inner, inner}, "does not list"},
		"the manifest":       {[][]byte{manifest}, "is not an index's"},
		"empty":              {[][]byte{{}}, "not JSON"},
		"nothing listed":     {[][]byte{[]byte(`{}`)}, "does not list"},
		"too long":           {[][]byte{append(bytes.Clone(inner), make([]byte, maxManifest)...)}, "more than 4194304"},
		"too many":           {many, "5 indexes, more than 4"},
		"media type":         {[][]byte{lists(`,"mediaType":"application/vnd.oci.image.manifest.v1+json"`)}, "is not an index's"},
		"layers too":         {[][]byte{lists(`,"layers":[]`)}, `ambiguous: an index that also has "layers"`},
		"a config too":       {[][]byte{lists(`,"config":{}`)}, `ambiguous: an index that also has "config"`},
	} {
		t.Run(name, func(t *testing.T) {
			img, err := NewImage(cachetest.Ref, manifest, config, c.indexes...)
			require.ErrorIs(t, err, ErrInvalidImage)
			assert.ErrorContains(t, err, c.reason)
			assert.Nil(t, img)
		})
	}
	_, err := NewImage(cachetest.Ref, manifest, config, lists(""), []byte("x"))
	require.ErrorIs(t, err, ErrInvalidImage)
	// Only what is needed is read: digests of algorithms to come, fields of any type.
	_, err = NewImage(cachetest.Ref, manifest, config, lists(`,"annotations":7,"subject":null,"artifactType":[]`))
	require.NoError(t, err)
	_, err = NewImage(cachetest.Ref, manifest, config, fmt.Appendf(nil, `{"manifests":[{"digest":"blake3:00"},{"digest":%q,"platform":"?"}]}`, imagespec.DigestOf(manifest)))
	require.NoError(t, err)
}

// An archive for an engine that has a layer is a tarball with all the rest.
func TestArchiveHasTheIndexes(t *testing.T) {
	src := cachetest.Blobs{}
	manifest, config, inner, outer := found(src)
	img, err := NewImage(cachetest.Ref, manifest, config, outer, inner)
	require.NoError(t, err)
	without, err := newLayout(img, Provenance{}, func(l v1.Hash) bool { return l == img.Layers()[0].Digest })
	require.NoError(t, err)
	for _, raw := range [][]byte{inner, outer} {
		assert.True(t, bytes.Contains(without.head(), raw))
	}
}
