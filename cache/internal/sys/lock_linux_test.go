package sys

import (
	"io"
	"os"
	"os/signal"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A reader that comes in the instant in which another process has a lease waits for
// its end.
func TestOpenToReadWaitsForALease(t *testing.T) {
	f := create(t, []byte("content"))
	asked := make(chan os.Signal, 8)
	signal.Notify(asked, unix.SIGIO) // the kernel's wish to have the lease back
	defer signal.Stop(asked)
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	require.NoError(t, err)
	var released error
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-asked
		_, released = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	}()
	reader, err := OpenToRead(f.Name(), NoFollow)
	<-done
	require.NoError(t, err)
	defer reader.Close()
	require.NoError(t, released)
	content, err := io.ReadAll(reader)
	require.NoError(t, err)
	assert.Equal(t, "content", string(content))
}
