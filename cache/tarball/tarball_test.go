package tarball

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
)

// write writes the tarball of an image as its layout plans it, into a new file.
func write(t testing.TB, img *Image, src Source, p Provenance) string {
	t.Helper()
	layout, err := NewLayout(img, p)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "name_main.tar")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	for _, s := range layout.Segments() {
		at := io.NewOffsetWriter(f, s.Offset)
		if !s.IsBlob() || s.Length == 0 {
			_, err = at.Write(s.Literal)
			require.NoError(t, err)
			continue
		}
		r, err := src.ReadRange(t.Context(), s.Blob, 0, s.Length)
		require.NoError(t, err)
		n, err := io.Copy(at, r)
		require.NoError(t, err)
		require.Equal(t, s.Length, n)
		require.NoError(t, r.Close())
	}
	return path
}

// written is the tarball of an image of two layers.
func written(t testing.TB) (*Image, cachetest.Blobs, string) {
	t.Helper()
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 5000)), src.Add(cachetest.Noise(2, 300)))
	return img, src, write(t, img, src, Provenance{Source: "mirror/x:t", Branch: "main"})
}

// open opens a tarball until the end of the test.
func open(t testing.TB, path string) *Tarball {
	t.Helper()
	tarball, err := Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tarball.Close() })
	return tarball
}

func TestOpen(t *testing.T) {
	img, _, path := written(t)
	tarball := open(t, path)
	assert.Equal(t, path, tarball.Name())
	assert.Equal(t, img, tarball.Image)
	assert.Equal(t, Provenance{Source: "mirror/x:t", Branch: "main"}, tarball.Provenance)
	require.NoError(t, tarball.Verify(t.Context(), nil))
}

func TestOpenRefuses(t *testing.T) {
	_, _, path := written(t)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	bad := filepath.Join(t.TempDir(), "bad.tar")
	for name, content := range map[string][]byte{
		"empty":          {},
		"not a tar":      bytes.Repeat([]byte("x"), 4096),
		"one byte short": whole[:len(whole)-1],
		"one byte long":  append(bytes.Clone(whole), 0),
		"head only":      whole[:2048],
		"zeros":          make([]byte, len(whole)),
	} {
		require.NoError(t, os.WriteFile(bad, content, 0o644))
		_, err := Open(bad)
		require.ErrorIs(t, err, ErrNotTarball, name)
		assert.ErrorContains(t, err, bad)
	}

	_, err = Open(t.TempDir())
	require.ErrorIs(t, err, ErrNotTarball)
	_, err = Open(filepath.Join(t.TempDir(), "missing"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// Every single byte of the beginning counts, and Verify sees every other one.
func TestEveryByteIsVerified(t *testing.T) {
	_, _, path := written(t)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	tarball := open(t, path)
	head := len(tarball.Layout.head())
	// The provenance has no digest: another text there is another tarball that
	// agrees with itself.
	source := bytes.Index(whole, []byte("mirror/x:t"))
	branch := bytes.Index(whole, []byte(`branch":"main"`)) + len(`branch":"`)
	for i := range whole {
		if i%7 != 0 && i < len(whole)-1 {
			continue // every byte would take long and show no more
		}
		if (i >= source && i < source+len("mirror/x:t")) || (i >= branch && i < branch+len("main")) {
			continue
		}
		whole[i] ^= 1
		read, err := Read(bytes.NewReader(whole), int64(len(whole)), "bad.tar")
		if i < head {
			require.ErrorIs(t, err, ErrNotTarball, "byte %d", i)
		} else {
			require.NoError(t, err, "byte %d", i)
			require.Error(t, read.Verify(t.Context(), nil), "byte %d", i)
		}
		whole[i] ^= 1
	}
}

// A file that has grown since it was opened is damaged.
func TestVerifySeesTheWholeFile(t *testing.T) {
	_, _, path := written(t)
	tarball := open(t, path)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = f.Write(make([]byte, 7000))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.ErrorIs(t, tarball.Verify(t.Context(), nil), ErrNotTarball)
}

func TestOpenDoesNotWaitForAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe.tar")
	require.NoError(t, unix.Mkfifo(path, 0o644))
	_, err := Open(path)
	require.ErrorIs(t, err, ErrNotTarball)
}

func TestVerifyNamesTheLayer(t *testing.T) {
	img, _, path := written(t)
	tarball := open(t, path)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	for _, s := range tarball.Layout.Segments() {
		if s.Blob == img.Layers()[1].Digest {
			_, err = f.WriteAt([]byte{0, 1, 2, 3}, s.Offset)
			require.NoError(t, err)
		}
	}
	require.NoError(t, f.Close())
	err = tarball.Verify(t.Context(), nil)
	require.ErrorIs(t, err, ErrDigest)
	assert.NotErrorIs(t, err, ErrNotTarball)
	assert.ErrorContains(t, err, img.Layers()[1].Digest.String())
	var damage *DamageError
	require.ErrorAs(t, err, &damage)
	assert.Equal(t, []v1.Hash{img.Layers()[1].Digest}, damage.Layers)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, tarball.Verify(ctx, nil), context.Canceled)
}

// All that is damaged is named, not only the first: a repair fetches all of it.
func TestVerifyNamesAllDamage(t *testing.T) {
	img, _, path := written(t)
	tarball := open(t, path)
	damage(t, path, 0, 1)
	segments := tarball.Layout.Segments()
	end := segments[len(segments)-1] // two empty blocks
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{1}, end.Offset+end.Length-1)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	err = tarball.Verify(t.Context(), nil)
	require.ErrorIs(t, err, ErrDigest)
	require.ErrorIs(t, err, ErrNotTarball)
	var all *DamageError
	require.ErrorAs(t, err, &all)
	assert.Equal(t, path, all.Path)
	assert.Equal(t, []v1.Hash{img.Layers()[0].Digest, img.Layers()[1].Digest}, all.Layers)
	for _, l := range all.Layers {
		assert.ErrorContains(t, err, l.String())
	}
}

// damage changes a byte of some layers, by index, of the tarball at path.
func damage(t testing.TB, path string, layers ...int) {
	t.Helper()
	tarball := open(t, path)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	for _, i := range layers {
		at := tarball.Layout.Layers()[i].Offset
		var b [1]byte
		_, err = f.ReadAt(b[:], at)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte{b[0] ^ 1}, at)
		require.NoError(t, err)
	}
}

// Any reader will do: nothing needs a file.
func TestReadFromMemory(t *testing.T) {
	img, src, path := written(t)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	tarball, err := Read(bytes.NewReader(whole), int64(len(whole)), "in memory")
	require.NoError(t, err)
	assert.Equal(t, "in memory", tarball.Name())
	assert.Equal(t, img, tarball.Image)
	var seen int64
	require.NoError(t, tarball.Verify(t.Context(), func(n int64) { seen += n }))
	assert.Equal(t, tarball.Layout.Size(), seen)
	for _, l := range img.Layers() {
		r, err := tarball.ReadRange(t.Context(), l.Digest, 0, l.Size)
		require.NoError(t, err)
		require.NoError(t, iotest.TestReader(r, src[l.Digest]))
	}
	archive, r := openArchive(t, tarball, nil)
	require.NoError(t, iotest.TestReader(r, whole))
	assert.False(t, archive.IsLocal(), "it is on no file system")
	require.NoError(t, tarball.Close(), "there is nothing to close")

	for _, size := range []int64{-1, 0, 1, int64(len(whole)) - 1, int64(len(whole)) + 1} {
		_, err = Read(bytes.NewReader(whole), size, "in memory")
		require.ErrorIs(t, err, ErrNotTarball, size)
	}
	broken := errors.New("broken")
	_, err = Read(brokenAt{bytes.NewReader(whole), 1024, broken}, int64(len(whole)), "in memory")
	require.ErrorIs(t, err, ErrNotTarball)
	require.ErrorIs(t, err, broken)
}

// brokenAt is a reader that fails from an offset on.
type brokenAt struct {
	io.ReaderAt
	from int64
	err  error
}

func (b brokenAt) ReadAt(p []byte, at int64) (int, error) {
	if at >= b.from {
		return 0, b.err
	}
	return b.ReaderAt.ReadAt(p, at)
}

// An error of reading is no damage: the bytes may be right.
func TestVerifyWhenReadingFails(t *testing.T) {
	_, _, path := written(t)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	broken := errors.New("broken")
	good := open(t, path)
	for _, s := range good.Layout.Segments() {
		tarball := &Tarball{Info: good.Info, name: path, r: brokenAt{bytes.NewReader(whole), s.Offset, broken}}
		err = tarball.Verify(t.Context(), nil)
		require.ErrorIs(t, err, broken)
		var damage *DamageError
		require.False(t, errors.As(err, &damage))
	}
}

func TestClosedTarball(t *testing.T) {
	img, _, path := written(t)
	tarball, err := Open(path)
	require.NoError(t, err)
	r, err := tarball.ReadRange(t.Context(), img.Layers()[0].Digest, 0, 10)
	require.NoError(t, err)
	require.NoError(t, tarball.Close())
	_, err = r.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrClosed)
	require.ErrorIs(t, tarball.Verify(t.Context(), nil), os.ErrClosed)
}

func FuzzRead(f *testing.F) {
	_, _, path := written(f)
	whole, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(whole)
	f.Add(whole[:3000])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		tarball, err := Read(bytes.NewReader(content), int64(len(content)), "x.tar")
		if err != nil {
			return
		}
		require.EqualValues(t, len(content), tarball.Layout.Size())
	})
}

// Where the image can be found again, by its digest: where it came from, and its own.
func TestSources(t *testing.T) {
	img := testImage(t)
	own := strings.TrimSuffix(cachetest.Ref, ":name-2f5e") + "@" + img.Digest().String()
	for source, want := range map[string][]string{
		"":                                     {own},
		"ghcr.io/a/b:c":                        {"ghcr.io/a/b@" + img.Digest().String(), own},
		"ghcr.io/a/b@" + img.Digest().String(): {"ghcr.io/a/b@" + img.Digest().String(), own},
		cachetest.Ref:                          {own},
		"not a reference":                      {own},
	} {
		info := Info{Image: img, Provenance: Provenance{Source: source}}
		assert.Equal(t, want, info.Sources(), source)
	}
}

// What neither Open nor Read has made is an error.
func TestNotOpen(t *testing.T) {
	for _, tarball := range []*Tarball{{}, nil} {
		require.ErrorIs(t, tarball.Verify(t.Context(), nil), ErrNotTarball)
		_, err := tarball.V1()
		require.ErrorIs(t, err, ErrNotTarball)
		_, err = tarball.Archive(nil)
		require.ErrorIs(t, err, ErrNotTarball)
		_, err = tarball.ReadRange(t.Context(), v1.Hash{}, 0, 1)
		require.ErrorIs(t, err, ErrNotTarball)
		require.NoError(t, tarball.Close())
	}
	_, err := Read(nil, 0, "x")
	require.ErrorIs(t, err, ErrNotTarball)
}
