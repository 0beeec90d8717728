package sys

import (
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestInUse(t *testing.T) {
	created := create(t, []byte("content"))
	path := created.Name()
	require.NoError(t, created.Close())
	open := func(flags int) *os.File {
		f, err := os.OpenFile(path, flags, 0)
		require.NoError(t, err)
		return f
	}
	for _, flags := range []int{os.O_RDONLY, os.O_RDWR} {
		f := open(flags)
		assert.False(t, InUse(f))
		require.NoError(t, f.Close())

		reader := open(os.O_RDONLY)
		LockShared(reader)
		f = open(flags)
		held, err := TryLock(f)
		require.NoError(t, err)
		assert.True(t, held, "the library's own reader")
		assert.True(t, InUse(f))
		require.NoError(t, f.Close())
		require.NoError(t, reader.Close())

		f = open(flags)
		assert.False(t, InUse(f), "no reader any more")
		require.NoError(t, f.Close())
	}
}

// Another program's reader takes no lock.
func TestInUseByAnybody(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("leases are Linux's")
	}
	f := create(t, []byte("content"))
	if IsNetwork(f) {
		t.Skip("the temporary directory is on a network file system")
	}
	reader, err := os.Open(f.Name())
	require.NoError(t, err)
	assert.True(t, InUse(f))
	require.NoError(t, reader.Close())
	assert.False(t, InUse(f))
}

func TestIsAt(t *testing.T) {
	f := create(t, nil)
	assert.True(t, IsAt(f, f.Name()))
	require.NoError(t, os.Rename(f.Name(), f.Name()+".new"))
	assert.False(t, IsAt(f, f.Name()))
	require.NoError(t, os.Symlink(f.Name()+".new", f.Name()))
	assert.False(t, IsAt(f, f.Name()), "a link")
	assert.True(t, IsAt(f, f.Name()+".new"))
}
