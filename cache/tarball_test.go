package cache

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// stocked puts an image of two layers into a new directory.
func stocked(t testing.TB) (*Dir, *Image, blobs, string) {
	t.Helper()
	src := blobs{}
	img := testImage(t, src.add(noise(1, 5000)), src.add(noise(2, 300)))
	dir, err := OpenDir(t.TempDir(), nil)
	require.NoError(t, err)
	result, err := dir.Put(t.Context(), "name_main.tar", img, src, &PutOptions{Provenance: Provenance{Source: "mirror/x:t", Branch: "main"}})
	require.NoError(t, err)
	require.Equal(t, Stocked, result.Outcome)
	return dir, img, src, result.Path
}

func TestReadTarball(t *testing.T) {
	_, img, _, path := stocked(t)
	tarball, err := ReadTarball(path)
	require.NoError(t, err)
	assert.Equal(t, path, tarball.Path)
	assert.Equal(t, img, tarball.Image)
	assert.Equal(t, Provenance{Source: "mirror/x:t", Branch: "main"}, tarball.Provenance)
	require.NoError(t, tarball.Verify(t.Context()))
}

func TestReadTarballRefuses(t *testing.T) {
	_, _, _, path := stocked(t)
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
		_, err := ReadTarball(bad)
		require.ErrorIs(t, err, ErrNotTarball, name)
		assert.ErrorContains(t, err, bad)
	}

	_, err = ReadTarball(t.TempDir())
	require.ErrorIs(t, err, ErrNotTarball)
	_, err = ReadTarball(filepath.Join(t.TempDir(), "missing"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// Every single byte of the beginning counts, and Verify sees every other one.
func TestEveryByteIsProven(t *testing.T) {
	_, _, _, path := stocked(t)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	tarball, err := ReadTarball(path)
	require.NoError(t, err)
	head := len(tarball.Layout.head())
	// The provenance has no digest: another text there is another tarball that
	// agrees with itself.
	source := bytes.Index(whole, []byte("mirror/x:t"))
	branch := bytes.Index(whole, []byte(`branch":"main"`)) + len(`branch":"`)
	bad := filepath.Join(t.TempDir(), "bad.tar")
	for i := range whole {
		if i%7 != 0 && i < len(whole)-1 {
			continue // every byte would take long and show no more
		}
		if (i >= source && i < source+len("mirror/x:t")) || (i >= branch && i < branch+len("main")) {
			continue
		}
		whole[i] ^= 1
		require.NoError(t, os.WriteFile(bad, whole, 0o644))
		whole[i] ^= 1
		read, err := ReadTarball(bad)
		if i < head {
			require.ErrorIs(t, err, ErrNotTarball, "byte %d", i)
			continue
		}
		require.NoError(t, err, "byte %d", i)
		require.Error(t, read.Verify(t.Context()), "byte %d", i)
	}
}

func TestVerifySeesTheWholeFileAndNoOther(t *testing.T) {
	dir, _, src, path := stocked(t)
	tarball, err := ReadTarball(path)
	require.NoError(t, err)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = f.Write(make([]byte, 7000))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.ErrorIs(t, tarball.Verify(t.Context()), ErrNotTarball)

	_, err = dir.Put(t.Context(), "name_main.tar", testImage(t, src.add(noise(9, 100))), src, nil)
	require.NoError(t, err)
	require.ErrorIs(t, tarball.Verify(t.Context()), ErrReplaced)
}

func TestReadTarballDoesNotWaitForAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe.tar")
	require.NoError(t, unix.Mkfifo(path, 0o644))
	_, err := ReadTarball(path)
	require.ErrorIs(t, err, ErrNotTarball)
}

func TestVerifyNamesTheLayer(t *testing.T) {
	_, img, _, path := stocked(t)
	tarball, err := ReadTarball(path)
	require.NoError(t, err)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	for _, s := range tarball.Layout.Segments() {
		if s.Blob == img.Layers()[1].Digest {
			_, err = f.WriteAt([]byte{0, 1, 2, 3}, s.Offset)
			require.NoError(t, err)
		}
	}
	require.NoError(t, f.Close())
	err = tarball.Verify(t.Context())
	require.ErrorIs(t, err, ErrBlobDigest)
	assert.NotErrorIs(t, err, ErrNotTarball)
	assert.ErrorContains(t, err, img.Layers()[1].Digest.String())
	var damage *DamageError
	require.ErrorAs(t, err, &damage)
	assert.Equal(t, []v1.Hash{img.Layers()[1].Digest}, damage.Layers)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, tarball.Verify(ctx), context.Canceled)
}

// All that is damaged is named, not only the first: who repairs fetches it all.
func TestVerifyNamesAllDamage(t *testing.T) {
	_, img, _, path := stocked(t)
	tarball, err := ReadTarball(path)
	require.NoError(t, err)
	damage(t, path, 0, 1)
	segments := tarball.Layout.Segments()
	end := segments[len(segments)-1] // two empty blocks
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{1}, end.Offset+end.Length-1)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	err = tarball.Verify(t.Context())
	require.ErrorIs(t, err, ErrBlobDigest)
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
	tarball, err := ReadTarball(path)
	require.NoError(t, err)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	for _, i := range layers {
		at := tarball.Layout.layers()[i].Offset
		var b [1]byte
		_, err = f.ReadAt(b[:], at)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte{b[0] ^ 1}, at)
		require.NoError(t, err)
	}
}

func FuzzReadTarball(f *testing.F) {
	_, _, _, path := stocked(f)
	whole, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(whole)
	f.Add(whole[:3000])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		tarball, err := readHead(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			return
		}
		require.EqualValues(t, len(content), tarball.Layout.Size())
	})
}
