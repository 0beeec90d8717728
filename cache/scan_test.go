package cache

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
)

// many writes n tarballs of twelve layers into a new directory; all have the layer
// base.
func many(t testing.TB, n int, src cachetest.Blobs, base v1.Descriptor) *Dir {
	t.Helper()
	dir := openTestDir(t)
	for i := range n {
		layers := []v1.Descriptor{base}
		for l := range 11 {
			layers = append(layers, src.Add(fmt.Appendf(nil, "%d %d", i, l)))
		}
		img := testImage(t, layers...)
		layout, err := tarball.NewLayout(img, tarball.Provenance{})
		require.NoError(t, err)
		f, err := os.Create(filepath.Join(dir.Path(), fmt.Sprintf("%04d_main.tar", i)))
		require.NoError(t, err)
		for _, s := range layout.Segments() {
			content := s.Literal
			if s.IsBlob() {
				content = src[s.Blob]
			}
			_, err := f.WriteAt(content, s.Offset)
			require.NoError(t, err)
		}
		require.NoError(t, f.Close())
	}
	return dir
}

// Stocking an image of which one layer is in all tarballs, and one nowhere, as a new
// process and as the same.
func BenchmarkPutBesideMany(b *testing.B) {
	for _, n := range []int{10, 1000} {
		for _, fresh := range []bool{true, false} {
			b.Run(fmt.Sprintf("%d, new process: %v", n, fresh), func(b *testing.B) {
				src := cachetest.Blobs{}
				base := src.Add(cachetest.Noise(1, 10_000))
				dir := many(b, n, src, base)
				i := 0
				for b.Loop() {
					i++
					if fresh {
						var err error
						dir, err = Open(dir.Path(), nil)
						require.NoError(b, err)
					}
					_, err := dir.Put(b.Context(), "new_main.tar", testImage(b, base, src.Add(fmt.Appendf(nil, "new %d", i))), src, nil)
					require.NoError(b, err)
				}
			})
		}
	}
}

// A layer is found in whichever tarball contains it, and the tarballs are read once: again only
// when another file has the name, or it was written to.
func TestLayerIndex(t *testing.T) {
	src := cachetest.Blobs{}
	base := src.Add(cachetest.Noise(1, 10_000))
	const n = 20
	dir := many(t, n, src, base)
	path := func(i int) string { return filepath.Join(dir.Path(), fmt.Sprintf("%04d_main.tar", i)) }
	layersOf := func(i int) []tarball.Segment { return infoOf(t, path(i)).Layout.Layers() }
	places := func(wanted ...tarball.Segment) (all []string) {
		found, end := dir.findLayers(wanted)
		defer end()
		for _, w := range wanted {
			for _, l := range found[w.Blob] {
				got := make([]byte, w.Length)
				_, err := l.R.ReadAt(got, l.Offset)
				require.NoError(t, err)
				assert.Equal(t, w.Blob, cachetest.Digest(got))
				all = append(all, filepath.Base(l.Name))
			}
		}
		return all
	}
	common, own := layersOf(7)[0], layersOf(7)[5]
	require.Equal(t, base.Digest, common.Blob)
	assert.Equal(t, []string{"0007_main.tar"}, places(own))
	assert.Len(t, places(common), maxPlaces)
	assert.Equal(t, []string{"0000_main.tar", "0001_main.tar", "0002_main.tar", "0003_main.tar", "0007_main.tar", "0007_main.tar"}, places(common, own), "it is opened anyway")
	wrong := own
	wrong.Length++
	assert.Empty(t, places(wrong), "of another size")

	// What is known is not read again.
	write := func(i int, content []byte, at time.Time) {
		require.NoError(t, os.WriteFile(path(i), content, 0o644))
		require.NoError(t, os.Chtimes(path(i), at, at))
	}
	whole, err := os.ReadFile(path(7))
	require.NoError(t, err)
	info, err := os.Stat(path(7))
	require.NoError(t, err)
	size := map[v1.Hash]int64{own.Blob: own.Length}
	write(7, make([]byte, len(whole)), info.ModTime())
	assert.Equal(t, []holder{{"0007_main.tar", []v1.Hash{own.Blob}}}, dir.layers.holders(dir.Path(), size))
	assert.Empty(t, places(own), "but nothing is believed without being read")
	write(7, make([]byte, len(whole)), info.ModTime().Add(time.Second))
	assert.Empty(t, dir.layers.holders(dir.Path(), size))
	write(7, whole, info.ModTime())
	assert.Equal(t, []string{"0007_main.tar"}, places(own))

	// Another file under the name, and none any more.
	other, err := os.ReadFile(path(8))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path(7)+".new", other, 0o644))
	require.NoError(t, os.Rename(path(7)+".new", path(7)))
	assert.Empty(t, places(own))
	assert.Equal(t, []string{"0007_main.tar", "0008_main.tar"}, places(layersOf(8)[5]))
	require.NoError(t, os.Remove(path(7)))
	assert.Equal(t, []string{"0008_main.tar"}, places(layersOf(8)[5]))
	assert.Len(t, dir.layers.files, n-1, "what is gone is forgotten")

	// Those that cannot be read do not count among the places.
	for i := range maxPlaces {
		require.NoError(t, os.Truncate(path(i), 5_000))
	}
	assert.Equal(t, []string{"0004_main.tar", "0005_main.tar", "0006_main.tar", "0008_main.tar"}, places(common))
}

// Of an image with so many layers that their list is longer than what is read at first.
func TestLayerIndexOfManyLayers(t *testing.T) {
	src := cachetest.Blobs{}
	var layers []v1.Descriptor
	for i := range 500 {
		layers = append(layers, src.Add(fmt.Appendf(nil, "layer %d", i)))
	}
	dir := openTestDir(t)
	putAs(t, dir, "a_main.tar", testImage(t, layers...), src, tarball.Provenance{})
	for _, i := range []int{0, 250, 499} {
		found, end := dir.findLayers([]tarball.Segment{{Blob: layers[i].Digest, Length: layers[i].Size}})
		assert.Len(t, found[layers[i].Digest], 1, "%d", i)
		end()
	}
}
