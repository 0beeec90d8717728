package fetch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// This file simulates servers and the connections to them, in the time of a synctest
// bubble. Sizes and rates are divided by the scale of a simulation, so that few real bytes
// are written and hashed; times are those of a real fetch.

// A simulation is one fetch of one image.
type simulation struct {
	scale       float64 // sizes and rates are divided by it; 0 is 10
	connections int     // as for [New]
	layers      []float64
	hosts       []*server     // several are a [tarball.MultiSource], the preferred first
	multi       bool          // one host is a MultiSource too
	minRate     float64       // [Fetcher.MinRangeRate], in bytes a second
	window      int64         // of the sink, before scaling; 0 is none
	cancelAt    time.Duration // the caller cancels then
	within      time.Duration // the fetch is to end within it; 0 is 4 min
	wasteful    bool          // servers may send more than 6 % beyond the image
}

// MB and MiB are bytes before scaling.
const (
	MB  = 1e6
	MiB = 1 << 20
)

// outcome is how a simulation ended.
type outcome struct {
	Result
	err      error
	took     time.Duration // fake time
	size     int64         // of the image's layers, in real bytes
	hosts    []*server
	requests int
	refused  int
	sent     int64 // by all servers, in real bytes
}

func (o *outcome) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.2f s, %d requests, %d refused, %.1f %% of the image sent, %.2f %% duplicate", o.took.Seconds(), o.requests, o.refused, 100*float64(o.sent)/float64(o.size), 100*float64(o.duplicate())/float64(o.size))
	for _, h := range o.hosts {
		fmt.Fprintf(&b, "; %s: %d requests, %.1f %%, at most %d connections", h.name, h.requests, 100*h.sent/float64(o.size), h.most)
	}
	if o.err != nil {
		fmt.Fprintf(&b, "; error: %v", o.err)
	}
	return b.String()
}

func (o *outcome) duplicate() (n int64) {
	for _, s := range o.Sources {
		n += s.Duplicate
	}
	return n
}

// simulate runs a simulation in a bubble of its own. It asserts what holds of every
// fetch: an end within s.within, each body closed, right bytes, of duplicates at most
// 5 %, and that servers send little beyond that.
func simulate(t *testing.T, s simulation) (o *outcome) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := s.fetcher(t)
		o = s.fetch(t.Context(), t, f)
		requireClosed(t, o)
	})
	return o
}

// succeed is simulate for what must succeed.
func succeed(t *testing.T, s simulation) *outcome {
	t.Helper()
	o := simulate(t, s)
	require.NoError(t, o.err, "%s", o)
	if !s.wasteful {
		assert.LessOrEqual(t, float64(o.sent), 1.15*float64(o.size), "bytes sent: %s", o)
	}
	return o
}

// A start is a fetch that begins after some time.
type start struct {
	simulation
	after   time.Duration
	unnamed bool // the source is no MultiSource
	endless bool // it is canceled when all others are at their end
}

// together runs fetches with one fetcher, and returns how they ended. Those that are
// endless are canceled at the end of the others.
func together(t *testing.T, connections int, starts ...start) []*outcome {
	t.Helper()
	outcomes := make([]*outcome, len(starts))
	synctest.Test(t, func(t *testing.T) {
		starts[0].connections = connections
		f := starts[0].fetcher(t)
		ctx, cancel := context.WithCancel(t.Context())
		var all, bounded sync.WaitGroup
		for i, s := range starts {
			s.multi = !s.unnamed
			group := &bounded
			if s.endless {
				group, s.within = &all, time.Hour
			}
			group.Go(func() {
				time.Sleep(s.after)
				outcomes[i] = s.fetch(ctx, t, f)
			})
		}
		bounded.Wait()
		cancel()
		all.Wait()
		requireClosed(t, outcomes...)
	})
	return outcomes
}

// requireClosed requires that no request goes on.
func requireClosed(t testing.TB, outcomes ...*outcome) {
	t.Helper()
	for _, o := range outcomes {
		for _, h := range o.hosts {
			require.Zero(t, h.open, "%s: requests that have not ended; %s", h.name, o)
		}
	}
}

func (s *simulation) fetcher(t testing.TB) *Fetcher {
	f := New(s.connections)
	s.setSizes(f)
	if s.minRate != 0 {
		v := reflect.ValueOf(f).Elem().FieldByName("MinRangeRate")
		require.True(t, v.IsValid(), "Fetcher has no field MinRangeRate")
		v.SetInt(int64(s.minRate / s.scaling()))
	}
	return f
}

func (s *simulation) scaling() float64 { return cmp.Or(s.scale, 10) }

// setSizes scales what the fetcher counts in bytes. It is the only use of its sizes.
func (s *simulation) setSizes(f *Fetcher) {
	n := func(bytes int64) int64 { return max(int64(float64(bytes)/s.scaling()), 1) }
	f.sizes = sizes{whole: n(defaultSizes.whole), first: n(defaultSizes.first), least: n(defaultSizes.least), most: n(defaultSizes.most), keep: n(defaultSizes.keep), copied: n(defaultSizes.copied)}
	f.buffers.New = func() any { b := make([]byte, n(sys.ReadBuffer)); return &b }
}

// source is what the simulation reads from. It is the only place that knows how several
// origins are declared.
func (s *simulation) source() tarball.Source {
	if len(s.hosts) == 1 && !s.multi {
		return s.hosts[0]
	}
	return origins(s.hosts)
}

// fetch fetches the simulation's image with a fetcher, inside a bubble.
func (s *simulation) fetch(ctx context.Context, t testing.TB, f *Fetcher) *outcome {
	t.Helper()
	o := &outcome{hosts: s.hosts}
	var layers []v1.Descriptor
	for i, size := range s.layers {
		layers = append(layers, content.layer(byte(i+1), int(size/s.scaling())))
		o.size += layers[i].Size
	}
	layout := mustLayout(t, testImage(t, layers...))
	for i, h := range s.hosts {
		h.start(string(rune('A'+i)), s.scaling())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(s.within, 4*time.Minute), errLate)
	defer cancel()
	if s.cancelAt > 0 {
		time.AfterFunc(s.cancelAt, cancel)
	}
	file, begun := tempFile(t), time.Now()
	o.Result, o.err = f.Fetch(ctx, Job{Sink: windowed{File{file}, int64(float64(s.window) / s.scaling())}, Layout: layout, Source: s.source()})
	o.took = time.Since(begun)
	for _, h := range s.hosts {
		h.mu.Lock()
		o.requests += h.requests
		o.refused += h.refused
		o.sent += int64(h.sent)
		h.mu.Unlock()
	}
	if errors.Is(o.err, errLate) {
		t.Errorf("%s", o)
	}
	if o.err == nil {
		if slices.ContainsFunc(s.hosts, func(h *server) bool { return h.wrong }) { // others are hashed right
			requireFetched(t, file, layout, content.blobs)
		}
		assert.LessOrEqual(t, float64(o.duplicate()), 0.05*float64(o.size), "duplicates: %s", o)
	}
	return o
}

// windowed is a file that takes only so many bytes beyond those that are hashed.
type windowed struct {
	File
	window int64
}

func (w windowed) Window() int64 { return w.window }

// content is what all servers serve.
var content = blobs{blobs: cachetest.Blobs{}, layers: map[string]v1.Descriptor{}}

type blobs struct {
	mu     sync.Mutex
	noise  []byte // all blobs are parts of it
	blobs  cachetest.Blobs
	layers map[string]v1.Descriptor
}

// layer returns a layer of so many bytes, the same for the same seed.
func (c *blobs) layer(seed byte, size int) v1.Descriptor {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := fmt.Sprint(seed, size)
	if _, ok := c.layers[key]; !ok {
		from := int(seed) * 4099
		if from+size > len(c.noise) { // those before keep theirs: it is the same
			c.noise = cachetest.Noise(1, max(from+size, 17<<20))
		}
		c.layers[key] = c.blobs.Add(c.noise[from : from+size])
	}
	return c.layers[key]
}

func (c *blobs) get(digest v1.Hash) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.blobs[digest]
}

// A conn is a connection to a server. Its rate may depend on its fields.
type conn struct {
	number int           // in the order of opening, from 0
	sent   float64       // bytes over all its requests, before scaling
	age    time.Duration // since it was opened
	now    time.Duration // since the first request of the server

	opened time.Duration
}

// A request is one that a server has got.
type request struct {
	number         int           // from 0
	now            time.Duration // since the first request of the server
	blobAge        time.Duration // since the first request of this blob
	blob           v1.Hash
	offset, length int64 // real bytes
	size           int64 // of the blob
	conn           int   // the number of the connection, for firstByte and breaks
}

// A server serves all of content. Rates are in bytes a second before
// scaling. As with HTTP/1.1, a connection whose answer was read to its end serves the
// next request, the one that was used last first; another is closed.
type server struct {
	name      string
	hostName  string                                                      // where it is not the name
	parallel  bool                                                        // see [tarball.Origin]
	rate      func(c conn) float64                                        // of a connection; nil is no limit
	total     func(now time.Duration) float64                             // of all; nil is no limit
	roundTrip time.Duration                                               // before each answer
	dial      time.Duration                                               // before the first answer of a connection, beyond the round trip
	firstByte func(r request) time.Duration                               // before the answer, and beyond the round trip
	quota     *quota                                                      // of requests
	refuse    func(now time.Duration) (after time.Duration, refused bool) // requests
	down      func(now time.Duration) bool                                // connections are refused, and open ones break
	breaks    func(r request) (int64, bool)                               // after how many bytes the answer breaks, if it does
	fails     error                                                       // every request
	wrong     bool                                                        // a byte in the middle of each blob is wrong
	noRanges  bool                                                        // gives blobs only as a whole
	stall     time.Duration                                               // as registry.Options.StallTimeout; 0 is 15 s
	begins    time.Duration                                               // as registry.Options.FirstByteTimeout; 0 is 5 min
	step      time.Duration                                               // of the simulation; 0 is 4 ms
	log       func(format string, args ...any)                            // of each request, for looking at a simulation

	mu         sync.Mutex
	scale      float64
	begun      time.Time
	last       time.Duration // when the bodies advanced
	ticking    bool
	idle       []*conn
	bodies     []*body
	firstSeen  map[v1.Hash]time.Duration
	distrusted map[v1.Hash]bool
	samples    []sample

	requests int     // that it got
	refused  int     // that it refused
	asked    []ask   // each request
	sent     float64 // bytes that it sent, real ones
	open     int     // requests that are not at their end
	most     int     // open at the same time
	conns    int     // that were opened
}

// A sample is the state of a server at some time.
type sample struct {
	at   time.Duration
	sent float64
	open int
}

// An ask is what became of a request.
type ask struct {
	request
	refused bool
}

// A quota is how many requests a server allows.
type quota struct {
	requests     int           // in each second
	phase        time.Duration // how much of the first second is over at the first request
	after        time.Duration // Retry-After of a refusal
	sliding      bool          // in the last second, in place of each second of the clock
	countRefused bool          // refused requests count too

	mu      sync.Mutex // several servers may share one
	window  int64
	counted []time.Duration
}

func (q *quota) allow(now time.Duration) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w := int64((now + q.phase) / time.Second); !q.sliding && w != q.window {
		q.window, q.counted = w, nil
	}
	if q.sliding {
		q.counted = slices.DeleteFunc(q.counted, func(at time.Duration) bool { return now-at >= time.Second })
	}
	ok := len(q.counted) < q.requests
	if ok || q.countRefused {
		q.counted = append(q.counted, now)
	}
	return ok
}

var (
	errLate    = errors.New("the fetch should be at its end by now")
	errReset   = errors.New("simulated: connection reset by peer")
	errDown    = errors.New("simulated: connection refused")
	errStalled = errors.New("simulated: no byte came for too long")
)

const (
	// inFlight is how much of its rate a connection has on its way: when it is closed,
	// these bytes were sent without being read.
	inFlight = 50 * time.Millisecond
	// socketBuffer is how many bytes the server can send ahead of the reader.
	socketBuffer = 4 << 20
)

func (h *server) start(name string, scale float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.begun.IsZero() { // another image may be read from it already
		h.name, h.scale = cmp.Or(h.name, name), scale
		h.begun, h.firstSeen, h.distrusted = time.Now(), map[v1.Hash]time.Duration{}, map[v1.Hash]bool{}
	}
}

func (h *server) isDistrusted(digest v1.Hash) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.distrusted[digest]
}

func (h *server) distrust(digest v1.Hash) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, asked := h.firstSeen[digest]; !asked || h.distrusted[digest] {
		return false
	}
	h.distrusted[digest] = true
	return true
}

func (h *server) now() time.Duration { return time.Since(h.begun) }

// ReadRange implements [tarball.Source].
func (h *server) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h.mu.Lock()
	now := h.now()
	if _, ok := h.firstSeen[digest]; !ok {
		h.firstSeen[digest] = now
	}
	r := request{h.requests, now, now - h.firstSeen[digest], digest, offset, length, int64(len(content.get(digest))), 0}
	if h.requests++; h.requests > 50_000 {
		h.mu.Unlock()
		return nil, tarball.Permanent(errors.New("simulated: more than 50000 requests"))
	}
	var err error
	switch {
	case h.down != nil && h.down(now):
		err = errDown
	case h.fails != nil:
		err = h.fails
	case h.quota != nil && !h.quota.allow(now):
		h.refused++
		err = &marked{temporary: true, after: h.quota.after}
	case h.refuse != nil && h.refuses(now, &err):
	case h.noRanges && (offset > 0 || length < r.size):
		err = &marked{temporary: true, noRange: true}
	}
	h.asked = append(h.asked, ask{r, err != nil})
	if h.log != nil {
		h.log("%v %s: %d+%d: %v", now, h.name, offset, length, err)
	}
	h.open++
	h.most = max(h.most, h.open)
	var c *conn
	if err == nil {
		c = h.connection(now)
		r.conn = c.number
	}
	delay := h.roundTrip
	if c != nil && c.sent == 0 {
		delay += h.dial
	}
	h.mu.Unlock()

	if err == nil && h.firstByte != nil {
		delay += h.firstByte(r)
	}
	if limit := cmp.Or(h.begins, 5*time.Minute); delay > limit {
		delay, err = limit, errStalled
	}
	if e := wait.Sleep(ctx, delay); e != nil {
		err = e
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.open--
		return nil, err
	}
	b := &body{host: h, ctx: ctx, conn: c, content: content.get(digest)[offset : offset+length], begun: h.now(), moved: h.now(), wake: make(chan struct{}, 1)}
	if middle := r.size/2 - offset; h.wrong && middle >= 0 && middle < length {
		b.content = bytes.Clone(b.content)
		b.content[middle] ^= 1
	}
	if h.breaks != nil {
		if at, ok := h.breaks(r); ok && at < length {
			b.content, b.atEnd = b.content[:at], errReset
		}
	}
	h.bodies = append(h.bodies, b)
	if !h.ticking {
		h.ticking, h.last = true, h.now()
		h.tickAfter(cmp.Or(h.step, 4*time.Millisecond))
	}
	return b, nil
}

func (h *server) refuses(now time.Duration, err *error) bool {
	after, refused := h.refuse(now)
	if refused {
		h.refused++
		*err = &marked{temporary: true, after: after}
	}
	return refused
}

// connection returns an idle connection, or a new one.
func (h *server) connection(now time.Duration) *conn {
	if n := len(h.idle); n > 0 {
		c := h.idle[n-1]
		h.idle = h.idle[:n-1]
		return c
	}
	h.conns++
	return &conn{number: h.conns - 1, opened: now}
}

func (h *server) tickAfter(step time.Duration) {
	time.AfterFunc(step, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		moved := h.advance()
		if h.ticking = len(h.bodies) > 0; !h.ticking {
			return
		}
		next := cmp.Or(h.step, 4*time.Millisecond)
		if !moved { // nothing but time passes
			next = min(2*step, 20*time.Millisecond)
		}
		h.tickAfter(next)
	})
}

// rateOf returns what a connection can carry at the moment, in real bytes a second.
func (h *server) rateOf(c *conn, now time.Duration) float64 {
	if h.rate == nil {
		return math.MaxFloat64
	}
	at := *c
	at.sent, at.age, at.now = c.sent*h.scale, now-c.opened, now
	return h.rate(at) / h.scale
}

// advance lets bytes arrive at all bodies, and reports whether any did.
func (h *server) advance() (moved bool) {
	now := h.now()
	left := math.MaxFloat64
	if h.total != nil {
		left = h.total(now) / h.scale * (now - h.last).Seconds()
	}
	type share struct {
		body *body
		want float64
	}
	var shares []share
	for _, b := range h.bodies {
		if b.err != nil {
			continue
		}
		if h.down != nil && h.down(now) {
			b.fail(errReset)
			continue
		}
		passed := (now - max(b.begun, h.last)).Seconds()
		room := min(float64(len(b.content))-b.arrived, max(socketBuffer/h.scale-(b.arrived-float64(b.read)), 0))
		shares = append(shares, share{b, min(h.rateOf(b.conn, now)*passed, room)})
	}
	h.last = now
	// Each gets the same, and what one cannot take goes to the others.
	slices.SortStableFunc(shares, func(a, b share) int { return cmp.Compare(a.want, b.want) })
	for i, s := range shares {
		n := min(s.want, left/float64(len(shares)-i))
		left -= n
		before := math.Floor(s.body.arrived)
		s.body.arrived += n
		if size := float64(len(s.body.content)); s.body.arrived > size-1e-6 {
			s.body.arrived = size
		}
		s.body.conn.sent += n
		h.sent += n
		switch b := s.body; {
		case math.Floor(b.arrived) > before || b.atEnd != nil && b.complete():
			moved, b.moved = true, now
			b.notify()
		case b.arrived-float64(b.read) >= 1:
			b.moved = now // the reader is slow, not the server
		case !b.complete() && now-b.moved >= cmp.Or(h.stall, 15*time.Second):
			b.fail(errStalled)
		}
	}
	if n := len(h.samples); n == 0 || now-h.samples[n-1].at >= 50*time.Millisecond {
		h.samples = append(h.samples, sample{now, h.sent, h.open})
	}
	return moved
}

// sentBetween returns how many real bytes were sent from one time to another.
func (h *server) sentBetween(from, to time.Duration) float64 {
	at := func(t time.Duration) (n float64) {
		for _, s := range h.samples {
			if s.at <= t {
				n = s.sent
			}
		}
		return n
	}
	return at(to) - at(from)
}

// A body is an answer that is being read.
type body struct {
	host    *server
	ctx     context.Context
	conn    *conn
	content []byte
	atEnd   error // in place of io.EOF
	begun   time.Duration
	arrived float64 // bytes
	moved   time.Duration
	read    int
	err     error
	closed  bool
	wake    chan struct{}
}

func (b *body) complete() bool { return b.arrived == float64(len(b.content)) }

func (b *body) fail(err error) {
	b.err = err
	b.notify()
}

func (b *body) notify() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *body) Read(p []byte) (int, error) {
	for {
		b.host.mu.Lock()
		n := copy(p, b.content[b.read:int(b.arrived)])
		b.read += n
		err := b.err
		if b.read == len(b.content) {
			err = cmp.Or(b.atEnd, io.EOF)
		}
		if b.closed {
			n, err = 0, errors.New("simulated: read of a closed body")
		}
		b.host.mu.Unlock()
		switch {
		case n > 0 || len(p) == 0:
			return n, nil
		case b.ctx.Err() != nil:
			return 0, wait.Err(b.ctx)
		case err != nil:
			return 0, err
		}
		select {
		case <-b.wake:
		case <-b.ctx.Done():
		}
	}
}

func (b *body) Close() error {
	h := b.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	h.open--
	h.bodies = slices.DeleteFunc(h.bodies, func(o *body) bool { return o == b })
	switch {
	case b.read == len(b.content) && b.atEnd == nil && b.err == nil:
		h.idle = append(h.idle, b.conn)
	case b.err == nil:
		coming := min(h.rateOf(b.conn, h.now())*inFlight.Seconds(), socketBuffer/h.scale)
		if h.total != nil {
			coming = min(coming, h.total(h.now())/h.scale/float64(len(h.bodies)+1)*inFlight.Seconds())
		}
		h.sent += min(coming, float64(len(b.content))-b.arrived)
	}
	return nil
}

// origins are servers as one source.
type origins []*server

// EachOrigin implements [tarball.MultiSource].
func (o origins) EachOrigin(digest v1.Hash, yield func(name, host string, parallel bool, wait time.Duration, read tarball.ReadRangeFunc) bool) {
	right, wrong := origins{}, origins{}
	for _, h := range o {
		if h.isDistrusted(digest) {
			wrong = append(wrong, h)
		} else {
			right = append(right, h)
		}
	}
	for _, h := range append(right, wrong...) {
		if !yield(h.name+"/repository", cmp.Or(h.hostName, h.name), h.parallel && len(wrong) == 0, 0, h.ReadRange) {
			return
		}
	}
}

// Distrust implements [tarball.Distruster]: the first that has given bytes comes last for the
// blob, and none is read in parallel.
func (o origins) Distrust(digest v1.Hash) {
	for _, h := range o {
		if h.distrust(digest) {
			return
		}
	}
}

// ReadRange reads from the preferred server, or from the next one that can. Of those that
// may be read in parallel it takes the one with the fewest requests.
func (o origins) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	order := slices.Clone(o)
	slices.SortStableFunc(order, func(a, b *server) int {
		if !a.parallel && !b.parallel {
			return 0
		}
		a.mu.Lock()
		n := a.open
		a.mu.Unlock()
		b.mu.Lock()
		defer b.mu.Unlock()
		return n - b.open
	})
	var errs []error
	for _, h := range order {
		if h.isDistrusted(digest) {
			continue
		}
		r, err := h.ReadRange(ctx, digest, offset, length)
		if err == nil {
			return r, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// constant is a rate that does not change.
func constant(rate float64) func(conn) float64 { return func(conn) float64 { return rate } }

// inAll is a rate of a server that does not change.
func inAll(rate float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return rate }
}

// slowAt is rate for every connection but those of which slow is true.
func slowAt(rate, slowRate float64, slow func(conn) bool) func(conn) float64 {
	return func(c conn) float64 {
		if slow(c) {
			return slowRate
		}
		return rate
	}
}

// ideal returns how long so many bytes take at a rate.
func ideal(bytes, rate float64) time.Duration {
	return time.Duration(bytes / rate * float64(time.Second))
}

// atMost requires that an outcome took at most so many times as long as another time.
func atMost(t testing.TB, o *outcome, times float64, than time.Duration, what string) {
	t.Helper()
	ratio := o.took.Seconds() / than.Seconds()
	say := t.Logf
	if ratio > times {
		say = t.Errorf
	}
	say("%.2fx of %s (%.2f s), the bar is %.2fx: %s", ratio, what, than.Seconds(), times, o)
}
