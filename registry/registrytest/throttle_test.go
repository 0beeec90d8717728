package registrytest

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pipes is a listener of connections that need no network, so that a test may
// run on a clock of its own.
type pipes struct {
	net.Listener
	conns chan net.Conn
}

func (p pipes) Accept() (net.Conn, error) { return <-p.conns, nil }

// Two answers of a second each, on a clock that stands still while anything
// runs: the time that passes is the one that was asked for, and no other.
func TestThrottle(t *testing.T) {
	for name, answer := range map[string]func(net.Conn, []byte) error{
		"Write":    func(c net.Conn, p []byte) error { _, err := c.Write(p); return err },
		"ReadFrom": func(c net.Conn, p []byte) error { _, err := io.Copy(c, bytes.NewReader(p)); return err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				inner := pipes{conns: make(chan net.Conn, 1)}
				inner.conns <- server
				throttle := &Throttle{Listener: inner, BytesPerSecond: 1 << 20, Latency: 20 * time.Millisecond}
				conn, err := throttle.Accept()
				require.NoError(t, err)
				go func() {
					for request := make([]byte, 3); ; {
						if _, err := conn.Read(request); err != nil {
							return
						}
						assert.NoError(t, answer(conn, make([]byte, 1<<20)))
					}
				}()
				start := time.Now()
				for i := range 2 {
					_, err := client.Write([]byte("ask"))
					require.NoError(t, err)
					_, err = io.ReadFull(client, make([]byte, 1<<20))
					require.NoError(t, err)
					// One latency for the connection, and one for each answer.
					want := 20*time.Millisecond + time.Duration(i+1)*(time.Second+20*time.Millisecond)
					assert.Equal(t, want, time.Since(start))
				}
				synctest.Wait() // the last write has been counted
				assert.Equal(t, int64(2<<20), throttle.Written())
				require.NoError(t, client.Close())
				require.NoError(t, conn.Close())
			})
		})
	}
}

// A wait ends with the connection: a server that closes is not held up.
func TestThrottleEndsWithConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		inner := pipes{conns: make(chan net.Conn, 1)}
		inner.conns <- server
		conn, err := (&Throttle{Listener: inner, BytesPerSecond: 1}).Accept()
		require.NoError(t, err)
		start := time.Now()
		done := make(chan error)
		go func() { _, err := conn.Write(make([]byte, 1000)); done <- err }()
		synctest.Wait()
		require.NoError(t, conn.Close())
		require.ErrorIs(t, <-done, io.ErrClosedPipe)
		assert.Zero(t, time.Since(start))
		require.NoError(t, client.Close())
	})
}

// Files over real connections, with ranges, whole and unharmed.
func TestThrottleServesFiles(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	for _, rate := range []int64{0, 1 << 30} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		throttle := &Throttle{Listener: listener, BytesPerSecond: rate}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })}
		go func() { _ = server.Serve(throttle) }() // ends with ErrServerClosed
		for header, want := range map[string][]byte{"": content, "bytes=5-200004": content[5:200_005]} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+listener.Addr().String(), nil)
			require.NoError(t, err)
			if header != "" {
				request.Header.Set("Range", header)
			}
			resp, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.True(t, bytes.Equal(want, got), "rate %d, range %q", rate, header)
		}
		// The client may have the last bytes before the server has counted them.
		require.NoError(t, server.Shutdown(t.Context()))
		assert.GreaterOrEqual(t, throttle.Written(), int64(len(content)+200_000))
	}
}

// All connections together keep to one limit.
func TestThrottleTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := pipes{conns: make(chan net.Conn, 2)}
		throttle := &Throttle{Listener: inner, TotalBytesPerSecond: 1 << 20}
		start := time.Now()
		var group sync.WaitGroup
		for range 2 {
			client, server := net.Pipe()
			inner.conns <- server
			conn, err := throttle.Accept()
			require.NoError(t, err)
			go func() {
				_, err := conn.Write(make([]byte, 1<<20))
				assert.NoError(t, err)
			}()
			group.Go(func() {
				_, err := io.ReadFull(client, make([]byte, 1<<20))
				assert.NoError(t, err)
			})
		}
		group.Wait()
		assert.InDelta(t, 2*time.Second, time.Since(start), float64(2*lag), "two answers that alone take a second each")
	})
}

// The limit of a connection depends on its number and changes while it writes: the second
// has 1 MiB/s for a quarter of a MiB and then a hundredth, and 4 MiB/s after ten seconds.
func TestThrottleRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := pipes{conns: make(chan net.Conn, 2)}
		throttle := &Throttle{Listener: inner, BytesPerSecond: 1, Rate: func(c Conn) int64 {
			switch {
			case c.Number == 1:
				return 0
			case c.Age >= 10*time.Second:
				return 4 << 20
			case c.Sent >= 1<<18:
				return 1 << 14
			}
			return 1 << 20
		}}
		var conns, clients []net.Conn
		for range 2 {
			client, server := net.Pipe()
			inner.conns <- server
			conn, err := throttle.Accept()
			require.NoError(t, err)
			conns, clients = append(conns, conn), append(clients, client)
		}
		begin := time.Now()
		read := func(n, size int) time.Duration {
			go func() { _, err := conns[n].Write(make([]byte, size)); assert.NoError(t, err) }()
			_, err := io.ReadFull(clients[n], make([]byte, size))
			require.NoError(t, err)
			return time.Since(begin)
		}
		assert.Zero(t, read(0, 1<<20), "no limit")
		assert.InDelta(t, 250*time.Millisecond, read(1, 1<<18), float64(lag))
		synctest.Wait()
		assert.InDelta(t, 1250*time.Millisecond, read(1, 1<<14), float64(lag))
		time.Sleep(time.Minute)
		synctest.Wait()
		begin = time.Now()
		assert.InDelta(t, 250*time.Millisecond, read(1, 1<<20), float64(lag))
		synctest.Wait()
		assert.Equal(t, int64(2<<20+1<<18+1<<14), throttle.Written())
	})
}

// One byte a second is one byte each second, and no piece after hours.
func TestThrottleDrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		inner := pipes{conns: make(chan net.Conn, 1)}
		inner.conns <- server
		conn, err := (&Throttle{Listener: inner, BytesPerSecond: 1}).Accept()
		require.NoError(t, err)
		go func() { _, _ = conn.Write(make([]byte, 1<<20)) }() // ends with the connection
		begin := time.Now()
		for n := range 3 {
			_, err := io.ReadFull(client, make([]byte, 1))
			require.NoError(t, err)
			assert.InDelta(t, time.Duration(n+1)*time.Second, time.Since(begin), float64(lag))
		}
		require.NoError(t, conn.Close())
		require.NoError(t, client.Close())
	})
}
