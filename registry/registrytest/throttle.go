package registrytest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Throttle is a listener whose connections are like those to a registry far
// away: each is limited in bytes per second, and every answer is delayed. Wrap
// it around the listener of any server:
//
//	listener = &registrytest.Throttle{Listener: listener, BytesPerSecond: 25e6, Latency: 20 * time.Millisecond}
//
// What the server reads is not limited. Set the fields before the first Accept.
type Throttle struct {
	net.Listener
	// BytesPerSecond is the limit of what the server writes to each connection;
	// 0 is none.
	BytesPerSecond int64
	// Rate, when not nil, returns the limit in place of BytesPerSecond, so that
	// connections differ and a limit changes. It is called before each piece, of what
	// takes 8 ms or of one byte if that takes longer, by several goroutines at a time.
	Rate func(Conn) int64
	// TotalBytesPerSecond is the limit of what it writes to all connections
	// together; 0 is none.
	TotalBytesPerSecond int64
	// Latency is a round trip: it passes once before the first request of a new
	// connection is read, and once before the first byte of each answer.
	Latency time.Duration

	written  atomic.Int64
	accepted atomic.Int64

	mu  sync.Mutex
	due time.Time // when what was written to all would have arrived
}

// A Conn is a connection that [Throttle.Rate] is asked about.
type Conn struct {
	// Number counts the connections in the order in which they were accepted, from 1.
	Number int
	// Sent is how many bytes were written to it, Total how many to all connections,
	// headers included.
	Sent, Total int64
	// Age is the time since it was accepted.
	Age time.Duration
}

const (
	// paced is how many bytes are written at a time at most: at 25 MB/s every 2.6 ms,
	// which is a steady stream for a client. pieces is how many there are in a second at
	// least, as far as a piece has more than one byte.
	paced  = 64 << 10
	pieces = 128
	// unpaced is the same without a limit: only so that Written does not jump.
	unpaced = 4 << 20
	// lag is what a connection may catch up of time that timers overslept.
	lag = 10 * time.Millisecond
)

// Accept returns the next connection, limited.
func (t *Throttle) Accept() (net.Conn, error) {
	conn, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &throttledConn{Conn: conn, throttle: t, number: int(t.accepted.Add(1)), since: time.Now(), closed: make(chan struct{})}, nil
}

// Written returns how many bytes were written to all connections so far,
// headers included. What is in a socket's buffer counts.
func (t *Throttle) Written() int64 { return t.written.Load() }

type throttledConn struct {
	net.Conn
	throttle *Throttle
	number   int
	since    time.Time
	sent     int64
	accepted sync.Once
	asked    atomic.Bool // something was read since the last write
	due      time.Time   // when what was written would have arrived
	hangUp   sync.Once
	closed   chan struct{}
}

func (c *throttledConn) Read(p []byte) (int, error) {
	c.accepted.Do(func() { c.wait(c.throttle.Latency) })
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.asked.Store(true)
	}
	return n, err
}

func (c *throttledConn) Write(p []byte) (written int, err error) {
	for first := true; first || (err == nil && len(p) > 0); first = false {
		var n int
		rate := c.rate()
		part := p[:min(len(p), c.step(rate))]
		c.pace(len(part), rate)
		n, err = c.Conn.Write(part)
		c.count(int64(n))
		written += n
		p = p[n:]
	}
	return written, err
}

// ReadFrom lets a file go to the socket by sendfile, as it would without the
// limit: a limit must not cost the CPU time that a benchmark measures.
func (c *throttledConn) ReadFrom(r io.Reader) (written int64, err error) {
	to, ok := c.Conn.(io.ReaderFrom)
	if !ok {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	// The kernel is used for a file or a limited file, not for one limited twice.
	limited, ok := r.(*io.LimitedReader)
	for left := int64(1); left > 0; {
		rate := c.rate()
		part := &io.LimitedReader{R: r, N: int64(c.step(rate))}
		if ok {
			part.R, part.N = limited.R, min(part.N, limited.N)
		}
		want := part.N
		c.pace(int(want), rate)
		n, err := to.ReadFrom(part)
		c.count(n)
		written += n
		if ok {
			limited.N -= n
			left = limited.N
		}
		if err != nil || n < want {
			return written, err
		}
	}
	return written, nil
}

// Close ends the connection, and with it a wait.
func (c *throttledConn) Close() error {
	c.hangUp.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *throttledConn) count(n int64) {
	c.sent += n
	c.throttle.written.Add(n)
}

// rate returns the present limit of the connection; 0 is none.
func (c *throttledConn) rate() int64 {
	if c.throttle.Rate == nil {
		return c.throttle.BytesPerSecond
	}
	return c.throttle.Rate(Conn{Number: c.number, Sent: c.sent, Total: c.throttle.written.Load(), Age: time.Since(c.since)})
}

// step returns how many bytes are written at a time.
func (c *throttledConn) step(rate int64) int {
	switch {
	case rate > 0:
		return int(min(max(rate/pieces, 1), paced))
	case c.throttle.TotalBytesPerSecond > 0 || c.throttle.Rate != nil:
		return paced
	}
	return unpaced
}

// pace waits until n more bytes may have arrived.
func (c *throttledConn) pace(n int, rate int64) {
	earliest := time.Now().Add(-lag)
	if c.asked.Swap(false) {
		c.wait(c.throttle.Latency)
		earliest = time.Now() // an idle connection saves nothing up
	}
	c.due = after(c.due, earliest, n, rate)
	c.throttle.mu.Lock()
	c.throttle.due = after(c.throttle.due, time.Now().Add(-lag), n, c.throttle.TotalBytesPerSecond)
	all := c.throttle.due
	c.throttle.mu.Unlock()
	c.wait(max(time.Until(c.due), time.Until(all)))
}

// after returns when n more bytes will have arrived at a rate, if those before
// did at due; but none are saved up from before earliest. Without a rate that is
// at once.
func after(due, earliest time.Time, n int, rate int64) time.Time {
	if rate <= 0 {
		return time.Time{}
	}
	if due.Before(earliest) {
		due = earliest
	}
	return due.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
}

func (c *throttledConn) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.closed:
	}
}
