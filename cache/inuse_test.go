package cache

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestInUse(t *testing.T) {
	_, _, _, path := stocked(t)
	open := func(flags int) *os.File {
		f, err := os.OpenFile(path, flags, 0)
		require.NoError(t, err)
		return f
	}
	for _, flags := range []int{os.O_RDONLY, os.O_RDWR} {
		f := open(flags)
		assert.False(t, inUse(f))
		require.NoError(t, f.Close())

		reader := open(os.O_RDONLY)
		lockShared(reader)
		f = open(flags)
		assert.True(t, isLocked(f), "the library's own reader")
		assert.True(t, inUse(f))
		require.NoError(t, f.Close())
		require.NoError(t, reader.Close())

		f = open(flags)
		assert.False(t, inUse(f), "no reader any more")
		require.NoError(t, f.Close())
	}
}

// Another program's reader takes no lock.
func TestInUseByAnybody(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("leases are Linux's")
	}
	_, _, _, path := stocked(t)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	if isNetwork(f) {
		t.Skip("the temporary directory is on a network file system")
	}
	reader, err := os.Open(path)
	require.NoError(t, err)
	assert.True(t, inUse(f))
	require.NoError(t, reader.Close())
	assert.False(t, inUse(f))
}

// Those who verify a tarball, and those who take layers from it, are seen on
// other machines too.
func TestReadersLock(t *testing.T) {
	_, _, _, path := stocked(t)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	tarball, err := ReadTarball(path)
	require.NoError(t, err)
	asked := 0
	require.NoError(t, tarball.verify(t.Context(), func(int64) {
		asked++
		assert.True(t, isLocked(f))
	}))
	assert.Positive(t, asked)

	found, end := findLayers(filepath.Dir(path), tarball.Layout.layers())
	assert.Len(t, found, 2)
	assert.True(t, isLocked(f))
	end()
	assert.False(t, isLocked(f))
}
