package dataroot

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

// The least recently used go first; the newest of an image stays, and so does what is being
// cloned.
func TestPrune(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(dir, nil)
	require.NoError(t, err)
	make := func(base, version string, age time.Duration) string {
		name := TemplateName(base, EngineRecord{Docker, version, "overlay2"})
		at := time.Now().Add(-age)
		file := templateFile(t, func(r *Record) { r.Engine.Version, r.Made = version, at })
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), file, 0o644))
		require.NoError(t, os.Chtimes(filepath.Join(dir, name), at, at))
		return name
	}
	old, used, newest := make("a", "1", 72*time.Hour), make("a", "2", 60*time.Hour), make("a", "3", 50*time.Hour)
	other := make("b", "1", 80*time.Hour)
	f, err := os.Open(filepath.Join(dir, used))
	require.NoError(t, err)
	defer f.Close()
	sys.LockShared(f)

	o := &cache.PruneOptions{MaxAge: 24 * time.Hour, DryRun: true}
	r, err := d.Prune(context.Background(), o)
	require.NoError(t, err)
	require.NotEmpty(t, r.Removed)
	assert.FileExists(t, filepath.Join(dir, old))

	o.DryRun = false
	r, err = d.Prune(context.Background(), o)
	require.NoError(t, err)
	require.Len(t, r.Removed, 1)
	assert.Equal(t, old, r.Removed[0].Entry.Name)
	assert.NoFileExists(t, filepath.Join(dir, old))
	for _, name := range []string{used, newest, other} {
		assert.FileExists(t, filepath.Join(dir, name))
	}

	d.used(f)
	got, err := d.Get(used)
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now(), got.LastUsed, time.Hour)
	_, err = d.Prune(context.Background(), &cache.PruneOptions{MaxBytes: -1})
	assert.Error(t, err)

	// What was used since it was listed stays.
	entries, err := d.Entries()
	require.NoError(t, err)
	require.NoError(t, f.Close())
	for _, e := range entries {
		if e.Name == used {
			require.NoError(t, os.Chtimes(filepath.Join(dir, used), time.Now(), e.LastUsed.Add(time.Hour)))
			stays, err := d.RemoveEntry(&e, false)
			require.NoError(t, err)
			assert.True(t, stays)
			e.LastUsed = e.LastUsed.Add(time.Hour)
			stays, err = d.RemoveEntry(&e, true)
			require.NoError(t, err)
			assert.False(t, stays)
			assert.FileExists(t, filepath.Join(dir, used))
		}
	}
}

// Tarballs and templates are within one limit, and the least recently used of both goes first.
func TestPruneWithTarballs(t *testing.T) {
	dir := t.TempDir()
	tarballs, err := cache.Open(dir, nil)
	require.NoError(t, err)
	templates, err := Open(dir, nil)
	require.NoError(t, err)
	age := func(name string, age time.Duration) string {
		at := time.Now().Add(-age)
		require.NoError(t, os.Chtimes(filepath.Join(dir, name), at, at))
		return name
	}
	make := func(version string) string {
		name := TemplateName("a", EngineRecord{Docker, version, "overlay2"})
		file := templateFile(t, func(r *Record) { r.Engine.Version = version })
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), file, 0o644))
		return name
	}
	require.NoError(t, tarballtest.Stock(tarballs, "a.tar", "registry.example/a:1", 1000, "a"))
	require.NoError(t, tarballtest.Stock(tarballs, "b.tar", "registry.example/b:1", 1000, "b"))
	old := age(make("1"), 60*time.Hour)
	last := age("b.tar", 50*time.Hour)
	newer := age(make("2"), 40*time.Hour)
	o := &cache.PruneOptions{Count: 2, RemoveNewest: true, DryRun: true, Others: templates}
	for _, dryRun := range []bool{true, false} {
		o.DryRun = dryRun
		r, err := tarballs.Prune(context.Background(), o)
		require.NoError(t, err)
		require.Len(t, r.Removed, 2)
		assert.Equal(t, old, r.Removed[0].Entry.Name)
		assert.Equal(t, last, r.Removed[1].Entry.Name)
		assert.Equal(t, 2, r.Left)
		assert.Positive(t, r.Freed)
		if dryRun {
			assert.FileExists(t, filepath.Join(dir, old))
			assert.FileExists(t, filepath.Join(dir, last))
		}
	}
	assert.NoFileExists(t, filepath.Join(dir, old))
	assert.NoFileExists(t, filepath.Join(dir, last))

	o = &cache.PruneOptions{MaxBytes: 1, Others: templates}
	r, err := tarballs.Prune(context.Background(), o)
	require.NoError(t, err)
	assert.Empty(t, r.Removed) // the newest of both
	assert.Positive(t, r.OverBytes)
	assert.FileExists(t, filepath.Join(dir, newer))
}
