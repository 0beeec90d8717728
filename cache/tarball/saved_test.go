package tarball

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/internal/imagespec"
)

const savedRef = "registry.test/ci/image:jammy-1"

// archived are the entries of an archive, in order. A name that ends in "->X" is a link.
type entries []struct {
	name    string
	content []byte
}

func (e entries) tar(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range e {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(len(f.content))}
		if name, target, ok := strings.Cut(f.name, "->"); ok {
			h = &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
		} else if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		require.NoError(t, w.WriteHeader(h))
		_, err := w.Write(f.content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	require.NoError(t, err)
	return raw
}

// savedLayers are three layers, of which the last is the first again.
func savedLayers() [][]byte {
	one := cachetest.Noise(1, 100_000)
	return [][]byte{one, cachetest.Noise(2, 5000), one}
}

func savedConfig(t testing.TB, layers ...[]byte) []byte {
	t.Helper()
	ids := []v1.Hash{}
	for _, l := range layers {
		ids = append(ids, imagespec.DigestOf(l))
	}
	return mustJSON(t, map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
}

// docker20 is an archive as Docker before 25 writes it: a directory for each layer, in no
// order, the same layer as a link, and manifest.json last.
func docker20(t testing.TB, tags ...string) entries {
	t.Helper()
	layers := savedLayers()
	config := savedConfig(t, layers...)
	return entries{
		{"0b/", nil},
		{"0b/VERSION", []byte("1.0")},
		{"0b/layer.tar", layers[1]},
		{"4c/layer.tar->../9d/layer.tar", nil},
		{imagespec.DigestOf(config).Hex + ".json", config},
		{"9d/json", []byte("{}")},
		{"9d/layer.tar", layers[0]},
		{"manifest.json", mustJSON(t, []map[string]any{
			{"Config": "other.json", "RepoTags": []string{"other.test/x:1"}, "Layers": []string{"none"}},
			{"Config": imagespec.DigestOf(config).Hex + ".json", "RepoTags": tags, "Layers": []string{"9d/layer.tar", "0b/layer.tar", "4c/layer.tar"}},
		})},
		{"repositories", []byte("{}")},
	}
}

// docker25 is one as Docker since 25 writes it: an OCI layout with manifest.json. With
// containerd's store the layers are compressed.
func docker25(t testing.TB, compressed bool) (entries, []byte) {
	t.Helper()
	layers := savedLayers()
	config := savedConfig(t, layers...)
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: imagespec.DigestOf(config), Size: int64(len(config))}}
	all := entries{{"blobs/", nil}, {blobPath(imagespec.DigestOf(config)), config}}
	var paths []string
	for i, l := range layers {
		d := v1.Descriptor{MediaType: types.OCIUncompressedLayer}
		if compressed {
			l, d.MediaType = cachetest.Gzip(l), types.OCILayer
		}
		d.Digest, d.Size = imagespec.DigestOf(l), int64(len(l))
		manifest.Layers = append(manifest.Layers, d)
		paths = append(paths, blobPath(d.Digest))
		if i < 2 {
			all = append(all, entries{{blobPath(d.Digest), l}}...)
		}
	}
	raw := mustJSON(t, manifest)
	index := v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{
		{MediaType: types.OCIManifestSchema1, Digest: imagespec.DigestOf(nil), Annotations: map[string]string{annotationContainerdName: "other.test/x:1"}},
		{MediaType: types.OCIManifestSchema1, Digest: imagespec.DigestOf(raw), Size: int64(len(raw)), Annotations: map[string]string{annotationContainerdName: savedRef, annotationRefName: "jammy-1"}},
	}}
	return append(all, entries{
		{blobPath(imagespec.DigestOf(raw)), raw},
		{"index.json", mustJSON(t, index)},
		{"manifest.json", mustJSON(t, []map[string]any{{"Config": blobPath(imagespec.DigestOf(config)), "RepoTags": []string{savedRef}, "Layers": paths}})},
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
	}...), raw
}

func openSaved(t *testing.T, content []byte, ref string) (*Tarball, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jammy_main.tar")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	saved, err := OpenSaved(path, ref)
	if err == nil {
		t.Cleanup(func() { _ = saved.Close() })
		assert.Equal(t, path, saved.Name())
	} else {
		assert.ErrorContains(t, err, path)
	}
	return saved, err
}

// requireLayers verifies that the tarball is a whole one with these layers.
func requireLayers(t *testing.T, saved *Tarball, layers ...[]byte) {
	t.Helper()
	require.NoError(t, saved.Verify(t.Context(), nil))
	require.Len(t, saved.Image.Layers(), len(layers))
	for i := len(layers) - 1; i >= 0; i-- { // backwards: a compressed archive has to begin again
		d := saved.Image.Layers()[i]
		r, err := saved.ReadRange(t.Context(), d.Digest, 0, d.Size)
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(layers[i], got), i)
	}
	// What is made of it is a tarball of this package.
	archive, err := saved.Archive(nil)
	require.NoError(t, err)
	r := archive.Open(t.Context())
	defer r.Close()
	whole, err := io.ReadAll(r)
	require.NoError(t, err)
	again, err := Read(bytes.NewReader(whole), int64(len(whole)), "again")
	require.NoError(t, err)
	require.NoError(t, again.Verify(t.Context(), nil))
	assert.Equal(t, saved.Image.Manifest(), again.Image.Manifest())
	assert.Equal(t, saved.Image.Reference(), again.Image.Reference())
}

func TestOpenSaved(t *testing.T) {
	layers := savedLayers()
	old := docker20(t, "other.test/image:1", savedRef).tar(t)
	for name, content := range map[string][]byte{"plain": old, "compressed": cachetest.Gzip(old)} {
		saved, err := openSaved(t, content, savedRef)
		require.NoError(t, err, name)
		assert.Equal(t, savedRef, saved.Image.Reference())
		assert.Equal(t, imagespec.DigestOf(savedConfig(t, layers...)), saved.Image.ConfigDigest())
		requireLayers(t, saved, layers...)
		for i, l := range saved.Image.Layers() {
			assert.Equal(t, v1.Descriptor{MediaType: types.OCIUncompressedLayer, Digest: saved.Image.DiffIDs()[i], Size: int64(len(layers[i]))}, l)
		}
	}
	// A short name is Docker's.
	saved, err := openSaved(t, docker20(t, "debian:12").tar(t), "docker.io/library/debian:12")
	require.NoError(t, err)
	assert.Equal(t, "docker.io/library/debian:12", saved.Image.Reference())

	for _, compressed := range []bool{false, true} {
		archive, manifest := docker25(t, compressed)
		saved, err := openSaved(t, archive.tar(t), savedRef)
		require.NoError(t, err)
		assert.Equal(t, manifest, saved.Image.Manifest(), "the archive's own")
		want := savedLayers()
		if compressed {
			for i := range want {
				want[i] = cachetest.Gzip(want[i])
			}
		}
		requireLayers(t, saved, want...)
		// Without it, one is made.
		saved, err = openSaved(t, archive[:len(archive)-3].with(archive[len(archive)-2]).tar(t), savedRef)
		require.NoError(t, err)
		requireLayers(t, saved, want...)
	}

	// Compressed layers under other names, as other programs write them.
	one := cachetest.Gzip(layers[0])
	saved, err = openSaved(t, entries{
		{"one.tar.gz", one},
		{"config", savedConfig(t, layers[0])},
		{"manifest.json", mustJSON(t, []map[string]any{{"Config": "config", "RepoTags": []string{savedRef}, "Layers": []string{"one.tar.gz"}}})},
	}.tar(t), savedRef)
	require.NoError(t, err)
	assert.Equal(t, types.OCILayer, saved.Image.Layers()[0].MediaType)
	requireLayers(t, saved, one)
}

func (e entries) with(more ...struct {
	name    string
	content []byte
},
) entries {
	return append(e[:len(e):len(e)], more...)
}

// What is no archive of docker save, or has another image, says so.
func TestOpenSavedErrors(t *testing.T) {
	whole := docker20(t, savedRef)
	config := savedConfig(t, savedLayers()...)
	ours, err := os.ReadFile(write(t, testImage(t), cachetest.Blobs{}, Provenance{}))
	require.NoError(t, err)
	replace := func(name string, content []byte) []byte {
		changed := whole[:len(whole):len(whole)]
		for i := range changed {
			if changed[i].name == name {
				changed = append(entries{}, changed...)
				changed[i].content = content
			}
		}
		return changed.tar(t)
	}
	for name, c := range map[string]struct {
		content []byte
		want    error
		text    string
	}{
		"empty":                {nil, ErrNotTarball, "0 bytes"},
		"text":                 {[]byte("no tarball\n"), ErrNotTarball, "after 0 files"},
		"zeros":                {make([]byte, 4096), ErrNotTarball, `no file "manifest.json"`},
		"ours":                 {ours, ErrNotTarball, "one of this cache, and damaged"},
		"in xz":                {[]byte("\xfd7zXZ\x00..."), ErrNotTarball, "compressed with xz, which is not supported"},
		"in zstd":              {[]byte("\x28\xb5\x2f\xfd..."), ErrNotTarball, "compressed with zstd"},
		"another image":        {docker20(t, "a.test/a:1", "b.test/b:2").tar(t), ErrOtherImage, "it has a.test/a:1, b.test/b:2, other.test/x:1"},
		"without a name":       {replace("manifest.json", []byte(`[{"Config":"x"}]`)), ErrOtherImage, "images without a name"},
		"manifest.json":        {replace("manifest.json", []byte(`nonsense`)), ErrNotTarball, "manifest.json"},
		"another config":       {replace(imagespec.DigestOf(config).Hex+".json", []byte(`{}`)), ErrDigest, "its bytes have the digest"},
		"too few layers":       {replace("manifest.json", []byte(`[{"Config":"`+imagespec.DigestOf(config).Hex+`.json","RepoTags":["`+savedRef+`"],"Layers":["0b/layer.tar"]}]`)), ErrNotTarball, "lists 3 layers, manifest.json 1"},
		"a layer that is not":  {replace("manifest.json", []byte(`[{"Config":"`+imagespec.DigestOf(config).Hex+`.json","RepoTags":["`+savedRef+`"],"Layers":["0b/layer.tar","0b/layer.tar","x"]}]`)), ErrNotTarball, `no file "x"`},
		"a link to itself":     {entries{{"manifest.json->manifest.json", nil}}.tar(t), ErrNotTarball, `no file "manifest.json"`},
		"no config":            {replace("manifest.json", []byte(`[{"Config":"../../etc/passwd","RepoTags":["`+savedRef+`"]}]`)), ErrNotTarball, `no file "../../etc/passwd"`},
		"a config that is not": {replace("manifest.json", []byte(`[{"Config":"0b/layer.tar","RepoTags":["`+savedRef+`"]}]`)), ErrNotTarball, "config 0b/layer.tar"},
	} {
		_, err := openSaved(t, c.content, savedRef)
		require.ErrorIs(t, err, c.want, name)
		assert.ErrorContains(t, err, c.text, name)
	}
	_, err = OpenSaved(filepath.Join(t.TempDir(), "none"), savedRef)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = OpenSaved(t.TempDir(), savedRef)
	require.ErrorIs(t, err, ErrNotTarball)
	_, err = openSaved(t, whole.tar(t), "No Reference")
	require.ErrorIs(t, err, ErrInvalidImage)
}

// However an archive is cut off, as one that is being written, it is not taken for a whole
// one: neither is one that is compressed.
func TestOpenSavedTruncated(t *testing.T) {
	archive := docker20(t, savedRef)
	whole, manifest := archive.tar(t), archive[len(archive)-2].content
	least := bytes.Index(whole, manifest) + len(manifest) // all before that is needed
	for _, content := range [][]byte{whole, cachetest.Gzip(whole)} {
		until := least
		if len(content) != len(whole) {
			until = len(content) * 9 / 10
		}
		for n := 0; n < until; n += 509 {
			_, err := openSaved(t, content[:n], savedRef)
			require.ErrorIs(t, err, ErrNotTarball, n)
		}
	}
}

// Wrong bytes in a layer are found when it is read.
func TestOpenSavedDamaged(t *testing.T) {
	whole := docker20(t, savedRef).tar(t)
	whole[bytes.Index(whole, savedLayers()[0])+50_000] ^= 1
	for _, content := range [][]byte{whole, cachetest.Gzip(whole)} {
		saved, err := openSaved(t, content, savedRef)
		require.NoError(t, err)
		archive, err := saved.Archive(nil)
		require.NoError(t, err)
		r := archive.Open(t.Context())
		_, err = io.Copy(io.Discard, r)
		require.ErrorIs(t, err, ErrDigest)
		require.NoError(t, r.Close())
	}
}

func FuzzOpenSaved(f *testing.F) {
	f.Add(docker20(f, savedRef).tar(f))
	archive, _ := docker25(f, true)
	f.Add(archive.tar(f))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "x.tar")
		require.NoError(t, os.WriteFile(path, content, 0o600))
		saved, err := OpenSaved(path, savedRef)
		if err != nil {
			return
		}
		_ = saved.Verify(t.Context(), nil)
		require.NoError(t, saved.Close())
	})
}
