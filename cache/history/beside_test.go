package history_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/history"
	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
)

// The directory does not take a log for a tarball, nor for what a writer has left: it is not
// listed, and nothing removes it. It counts in a quota, as all files do.
func TestBesideTarballs(t *testing.T) {
	path := t.TempDir()
	log := history.Open(path, nil)
	require.NoError(t, log.Append(t.Context(), history.Record{Kind: history.Load, Outcome: history.Missing}))
	files, err := filepath.Glob(filepath.Join(path, ".history.*.jsonl"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	before := filepath.Join(path, filepath.Base(files[0][:len(files[0])-len("jsonl")])+"1.jsonl")
	require.NoError(t, os.WriteFile(before, make([]byte, 300<<10), 0o600))
	old := time.Now().Add(-1000 * time.Hour)
	for _, f := range []string{files[0], before} {
		require.NoError(t, os.Chtimes(f, old, old))
	}

	src := cachetest.Blobs{}
	manifest, config := cachetest.Pair(src.Add(cachetest.Noise(1, 100<<10)))
	image, err := tarball.NewImage(cachetest.Ref, cachetest.Marshal(manifest), config)
	require.NoError(t, err)
	full, err := cache.Open(path, &cache.Options{Quota: 400 << 10})
	require.NoError(t, err)
	_, err = full.Put(t.Context(), "name_main.tar", image, src, nil)
	require.ErrorIs(t, err, cache.ErrQuota)

	dir, err := cache.Open(path, nil)
	require.NoError(t, err)
	_, err = dir.Put(t.Context(), "name_main.tar", image, src, nil)
	require.NoError(t, err)
	entries, err := dir.List(t.Context())
	require.NoError(t, err)
	assert.Len(t, entries, 1)
	swept, err := dir.Sweep(t.Context(), &cache.SweepOptions{Age: time.Nanosecond})
	require.NoError(t, err)
	assert.Empty(t, swept)
	pruned, err := dir.Prune(t.Context(), &cache.PruneOptions{MaxBytes: 1, RemoveNewest: true, Foreign: true})
	require.NoError(t, err)
	assert.Len(t, pruned.Removed, 1)
	for _, f := range []string{files[0], before} {
		assert.FileExists(t, f)
	}
}
