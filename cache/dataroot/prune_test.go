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
}
