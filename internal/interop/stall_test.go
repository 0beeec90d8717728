package interop

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// stallAfter returns the socket of a proxy for an engine's that lets n bytes through
// to it, over all connections, and then no more. The channel is closed at that
// moment.
func stallAfter(t *testing.T, socket string, n int64) (proxy string, reached <-chan struct{}) {
	t.Helper()
	path := shortDir(t, t) + "/proxy.sock"
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	done := make(chan struct{})
	var once sync.Once
	left := make(chan int64, 1)
	left <- n
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", socket)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(client, server)
				_ = client.Close()
			}()
			go func() {
				defer server.Close()
				buffer := make([]byte, 32<<10)
				for {
					got, err := client.Read(buffer)
					if err != nil {
						return // the client is gone
					}
					has := <-left
					if has <= 0 {
						left <- has
						once.Do(func() { close(done) })
						continue
					}
					left <- has - int64(got)
					if _, err := server.Write(buffer[:got]); err != nil {
						return
					}
				}
			}()
		}
	}()
	t.Cleanup(func() { _ = listener.Close() })
	return path, done
}
