package filesystems

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
)

// A file system that is read-only: what is there can be found and read, nothing
// can be stocked, and the error says why.
func TestReadOnly(t *testing.T) {
	path := fileSystems[3].mounted(t, 0)
	src := newSource()
	first, err := src.image("example.com/a:1", layer{"a", mib})
	require.NoError(t, err)
	second, err := src.image("example.com/a:1", layer{"b", mib})
	require.NoError(t, err)
	dir, err := cache.Open(path, nil)
	require.NoError(t, err)
	_, err = dir.Put(t.Context(), "a_main.tar", first, src, nil)
	require.NoError(t, err)
	run(t, "mount", "-o", "remount,ro", filepath.Dir(path))

	result, err := dir.Put(t.Context(), "a_main.tar", first, src, nil)
	require.NoError(t, err)
	assert.Equal(t, cache.Unchanged, result.Outcome)
	_, err = dir.Put(t.Context(), "a_main.tar", second, src, nil)
	require.ErrorIs(t, err, syscall.EROFS)
	assert.ErrorContains(t, err, path)
	assert.Equal(t, first.Digest(), requireIntact(t, dir, "a_main.tar"))
}

// midway calls something once more than so many bytes of layers were asked for.
type midway struct {
	*source
	after int64
	asked atomic.Int64
	once  sync.Once
	do    func()
}

func (m *midway) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	if m.asked.Add(length) > m.after {
		m.once.Do(m.do)
	}
	return m.source.ReadRange(ctx, digest, offset, length)
}

// A directory that is removed in the middle, and one in whose place something
// else is: an error, and nothing is made anywhere.
func TestDirectoryIsGone(t *testing.T) {
	for name, instead := range map[string]func(path, elsewhere string) error{
		"nothing": func(string, string) error { return nil },
		"a file":  func(path, _ string) error { return os.WriteFile(path, []byte("precious"), 0o644) },
		"a link":  func(path, elsewhere string) error { return os.Symlink(elsewhere, path) },
	} {
		t.Run(name, func(t *testing.T) {
			path, elsewhere := filepath.Join(t.TempDir(), "cache"), t.TempDir()
			require.NoError(t, os.Mkdir(path, 0o755))
			src := newSource()
			img, err := src.image("example.com/a:1", layer{"a", mib})
			require.NoError(t, err)
			dir, err := cache.Open(path, nil)
			require.NoError(t, err)
			gone := &midway{source: src, do: func() {
				assert.NoError(t, os.RemoveAll(path))
				assert.NoError(t, instead(path, elsewhere))
			}}
			_, err = dir.Put(t.Context(), "a_main.tar", img, gone, nil)
			require.Error(t, err)
			assert.Empty(t, names(t, elsewhere))
			if name == "a file" {
				content, err := os.ReadFile(path)
				require.NoError(t, err)
				assert.Equal(t, "precious", string(content))
				_, err = cache.Open(path, nil)
				require.ErrorContains(t, err, "is not a directory")
			}
		})
	}
}
