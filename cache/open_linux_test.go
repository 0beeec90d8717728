package cache

import (
	"os"
	"os/signal"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A reader that comes in the instant in which another process has a lease waits for its
// end. It must not take the tarball for unreadable, which a writer would replace.
func TestOpenWaitsForALease(t *testing.T) {
	_, img, _, path := stocked(t)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	asked := make(chan os.Signal, 8)
	signal.Notify(asked, unix.SIGIO) // the kernel's wish to have the lease back
	defer signal.Stop(asked)
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	require.NoError(t, err)
	var released error
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-asked
		_, released = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	}()
	stored, _, err := openTarball(path, 0)
	<-done
	require.NoError(t, err)
	defer stored.Close()
	require.NoError(t, err)
	require.NoError(t, released)
	assert.Equal(t, img.Digest(), stored.Image.Digest())
}
