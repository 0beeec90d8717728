package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
)

func TestList(t *testing.T) {
	src := cachetest.Blobs{}
	base, twice := src.Add(cachetest.Noise(1, 50_000)), src.Add(cachetest.Noise(2, 300))
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	a := putAs(t, dir, "b_main.tar", testImage(t, base, twice, twice), src, tarball.Provenance{Run: tarball.Run{ID: 7, Attempt: 1}})
	alone := testImage(t, src.Add(cachetest.Noise(3, 1000)))
	putAs(t, dir, "c_main.tar", alone, src, tarball.Provenance{})
	putAs(t, dir, "a_main.tar", testImage(t, twice, base, src.Add(cachetest.Noise(4, 1000))), src, tarball.Provenance{})
	written := time.Unix(1_700_000_000, 0)
	require.NoError(t, os.Chtimes(a, written, written))

	// The same again, by a newer run, an hour and more after.
	used := written.Add(2 * time.Hour)
	dir.now = func() time.Time { return used }
	result, err := dir.Put(t.Context(), "b_main.tar", testImage(t, base, twice, twice), none, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 9, Attempt: 2}}})
	require.NoError(t, err)
	require.Equal(t, Unchanged, result.Outcome)
	require.NoError(t, os.Chtimes(markPath(dir.Path(), "b_main.tar"), used, used))

	entries, err := dir.List(t.Context())
	require.NoError(t, err)
	require.Len(t, entries, 3)
	for i, name := range []string{"a_main.tar", "b_main.tar", "c_main.tar"} {
		e := entries[i]
		assert.Equal(t, name, e.Name)
		require.NoError(t, e.Err)
		assert.Equal(t, e.Info.Layout.Size(), e.Size)
		assert.Positive(t, e.Allocated)
	}
	assert.Equal(t, tarball.Run{ID: 9, Attempt: 2}, entries[1].Run, "the record's")
	assert.Zero(t, entries[0].Run)
	assert.Equal(t, written, entries[1].Written)
	assert.Equal(t, used, entries[1].LastUsed)
	assert.Equal(t, entries[2].Written, entries[2].LastUsed, "without a record")

	// A record that is older than the file says nothing.
	require.NoError(t, os.Chtimes(markPath(dir.Path(), "b_main.tar"), written.Add(-time.Hour), written.Add(-time.Hour)))
	entries, err = dir.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, written, entries[1].LastUsed)
}

// Whatever is in the directory, the tarballs in it are listed, and nothing else
// is opened.
func TestListHostile(t *testing.T) {
	elsewhere, img, src, outside := stocked(t)
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	at := func(name string) string { return filepath.Join(dir.Path(), name) }
	putAs(t, dir, "new\nline_main.tar", img, src, tarball.Provenance{})
	whole, err := os.ReadFile(outside)
	require.NoError(t, err)
	lying := bytes.Replace(whole, []byte(`"schemaVersion":2`), []byte(`"schemaVersion":3`), 1)
	require.NoError(t, os.WriteFile(at("lying_main.tar"), lying, 0o644))
	require.NoError(t, os.WriteFile(at("short_main.tar"), whole[:len(whole)-1], 0o644))
	require.NoError(t, os.WriteFile(at(`back\slash.tar`), whole, 0o644))
	long := strings.Repeat("n", maxName) + ".tar"
	require.NoError(t, os.WriteFile(at(long), whole, 0o644))
	require.NoError(t, os.Mkdir(at("dir_main.tar"), 0o755))
	require.NoError(t, unix.Mkfifo(at("pipe_main.tar"), 0o644))
	require.NoError(t, os.Symlink(outside, at("link_main.tar")))
	require.NoError(t, os.Symlink(markPath(elsewhere.Path(), "name_main.tar"), markPath(dir.Path(), "lying_main.tar")))
	require.NoError(t, os.WriteFile(at(".hidden_main.tar"), whole, 0o644))
	require.NoError(t, os.WriteFile(at("notes.txt"), whole, 0o644))

	entries, err := dir.List(t.Context())
	require.NoError(t, err)
	var have []string
	for _, e := range entries {
		have = append(have, e.Name)
		switch e.Name {
		case "new\nline_main.tar":
			require.NoError(t, e.Err)
		case "lying_main.tar", "short_main.tar":
			require.ErrorIs(t, e.Err, tarball.ErrNotTarball)
			assert.Nil(t, e.Info)
			assert.NotZero(t, e.Size)
			assert.False(t, e.LastUsed.IsZero())
		default:
			require.ErrorIs(t, e.Err, ErrInvalidName)
		}
	}
	assert.Equal(t, []string{`back\slash.tar`, "lying_main.tar", "new\nline_main.tar", long, "short_main.tar"}, have)
}

func TestListOfManyAndNone(t *testing.T) {
	dir, _, _, path := stocked(t)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for i := range 200 {
		require.NoError(t, os.WriteFile(filepath.Join(dir.Path(), fmt.Sprintf("n%03d_main.tar", i)), whole, 0o644))
	}
	entries, err := dir.List(t.Context())
	require.NoError(t, err)
	require.Len(t, entries, 201)
	assert.Equal(t, "name_main.tar", entries[200].Name)
	for i, e := range entries[:200] {
		require.NoError(t, e.Err)
		assert.Equal(t, fmt.Sprintf("n%03d_main.tar", i), e.Name)
	}

	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	_, err = dir.List(ctx)
	require.ErrorIs(t, err, reason)

	require.NoError(t, os.RemoveAll(dir.Path()))
	_, err = dir.List(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
}
