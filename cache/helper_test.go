package cache

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

func testImage(t testing.TB, layers ...v1.Descriptor) *tarball.Image {
	t.Helper()
	manifest, config := cachetest.Pair(layers...)
	img, err := tarball.NewImage(cachetest.Ref, cachetest.Marshal(manifest), config)
	require.NoError(t, err)
	return img
}

func mustLayout(t testing.TB, img *tarball.Image) *tarball.Layout {
	t.Helper()
	l, err := tarball.NewLayout(img, tarball.Provenance{Source: "ghcr.io/pytorch/ci-image:name-2f5e", Branch: "main"})
	require.NoError(t, err)
	return l
}

func openTestDir(t testing.TB) *Dir {
	t.Helper()
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	return dir
}

// stocked puts an image of two layers into a new directory.
func stocked(t testing.TB) (*Dir, *tarball.Image, cachetest.Blobs, string) {
	t.Helper()
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 5000)), src.Add(cachetest.Noise(2, 300)))
	dir := openTestDir(t)
	result, err := dir.Put(t.Context(), "name_main.tar", img, src, &PutOptions{Provenance: tarball.Provenance{Source: "mirror/x:t", Branch: "main"}})
	require.NoError(t, err)
	require.Equal(t, Stocked, result.Outcome)
	return dir, img, src, result.Path
}

// putAs stocks an image under a name.
func putAs(t testing.TB, dir *Dir, name string, img *tarball.Image, src tarball.Source, p tarball.Provenance) string {
	t.Helper()
	result, err := dir.Put(t.Context(), name, img, src, &PutOptions{Provenance: p})
	require.NoError(t, err)
	return result.Path
}

// get opens a tarball until the test ends.
func get(t testing.TB, dir *Dir, name string) *tarball.Tarball {
	t.Helper()
	open, err := dir.Get(t.Context(), name)
	require.NoError(t, err)
	t.Cleanup(func() { _ = open.Close() })
	return open
}

// infoOf returns what the beginning of the tarball at path says.
func infoOf(t testing.TB, path string) *tarball.Info {
	t.Helper()
	open, err := tarball.Open(path)
	require.NoError(t, err)
	defer open.Close()
	return &open.Info
}

// requireWhole verifies every byte of the tarball at path.
func requireWhole(t testing.TB, path string) *tarball.Info {
	t.Helper()
	open, err := tarball.Open(path)
	require.NoError(t, err)
	defer open.Close()
	require.NoError(t, open.Verify(t.Context(), nil))
	return &open.Info
}

// requireStocked verifies every byte of a tarball of the directory.
func requireStocked(t testing.TB, dir *Dir, name string) *tarball.Info {
	t.Helper()
	open, err := dir.Get(t.Context(), name)
	require.NoError(t, err)
	defer open.Close()
	require.NoError(t, open.Verify(t.Context(), nil))
	return &open.Info
}

// damage changes a byte of some layers, by index, of the tarball at path.
func damage(t testing.TB, path string, layers ...int) {
	t.Helper()
	info := infoOf(t, path)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	for _, i := range layers {
		at := info.Layout.Layers()[i].Offset
		var b [1]byte
		_, err = f.ReadAt(b[:], at)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte{b[0] ^ 1}, at)
		require.NoError(t, err)
	}
}

func content(t testing.TB, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(raw)
}

// names returns the names of all files in a directory, but for what is recorded of
// verifications: that depends on the file system, see verified_test.go.
func names(t testing.TB, dir string) []string {
	t.Helper()
	return slices.DeleteFunc(allNames(t, dir), func(name string) bool { return verifiedOf(name) != "" })
}

func allNames(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func withoutMark(names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return name == ".name_main.tar.mark" })
}

func tempFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// isLocked reports whether another has locked the file; if not, f has the lock now.
func isLocked(f *os.File) bool {
	held, _ := sys.TryLock(f)
	return held
}

// marked is an error of a source that may go away.
type marked struct{ temporary bool }

func (e *marked) Error() string   { return "marked" }
func (e *marked) Temporary() bool { return e.temporary }

// closing calls a function when it is closed.
type closing struct {
	io.ReadCloser
	closed func()
}

func (c *closing) Close() error { c.closed(); return c.ReadCloser.Close() }

// atStep calls a function at each step until the test ends.
func atStep(t testing.TB, do func(step string)) {
	before := sys.AtStep
	t.Cleanup(func() { sys.AtStep = before })
	sys.AtStep = do
}
