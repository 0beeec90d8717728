package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// upload is a sink with a window. It holds bytes in memory, in parts, and frees a part
// when all of it is hashed.
type upload struct {
	t          testing.TB
	layout     *tarball.Layout
	layers     []tarball.Segment
	window     int64
	partSize   int64
	beforeRead func(offset, n int64) error // when not nil, is called before bytes are read back
	failAfter  int64                       // when not 0, a write that ends beyond this offset fails

	mu     sync.Mutex
	bytes  []byte
	state  []byteState
	prefix int64  // bytes before it are hashed, or are no layer's
	sent   []byte // the bytes of parts that were freed
}

type byteState byte

const (
	missing byteState = iota
	written
	hashed
	freed
)

func newUpload(t testing.TB, layout *tarball.Layout, window int64) *upload {
	u := &upload{
		t: t, layout: layout, layers: layout.Layers(), window: window, partSize: max(window/3, 1),
		bytes: make([]byte, layout.Size()), state: make([]byteState, layout.Size()), sent: make([]byte, layout.Size()),
	}
	u.advance()
	return u
}

func (u *upload) Window() int64 { return u.window }

func (u *upload) literal(offset int64) bool {
	return !slices.ContainsFunc(u.layers, func(s tarball.Segment) bool { return s.Offset <= offset && offset < s.Offset+s.Length })
}

func (u *upload) WriteAt(p []byte, offset int64) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	end := offset + int64(len(p))
	if u.failAfter > 0 && end > u.failAfter && !u.literal(offset) {
		return 0, errors.New("the server is gone")
	}
	next := hashed
	if !u.literal(offset) {
		next = written
		if !assert.LessOrEqual(u.t, end, u.prefix+u.window, "written beyond the window") {
			return 0, errors.New("beyond the window")
		}
	}
	copy(u.bytes[offset:], p)
	for i := offset; i < end; i++ {
		u.state[i] = next
	}
	return len(p), nil
}

func (u *upload) ReadAt(p []byte, offset int64) (int, error) {
	if u.beforeRead != nil {
		if err := u.beforeRead(offset, int64(len(p))); err != nil {
			return 0, err
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range p {
		if s := u.state[offset+int64(i)]; s != written {
			return 0, fmt.Errorf("byte %d is read in state %d", offset+int64(i), s)
		}
	}
	return copy(p, u.bytes[offset:]), nil
}

func (u *upload) Hashed(offset, n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := offset; i < offset+n; i++ {
		if u.state[i] != written {
			u.t.Errorf("byte %d is hashed in state %d", i, u.state[i])
			return
		}
		u.state[i] = hashed
	}
	u.advance()
	for part := offset / u.partSize; part*u.partSize < offset+n; part++ {
		from, to := part*u.partSize, min((part+1)*u.partSize, u.layout.Size())
		if !slices.ContainsFunc(u.state[from:to], func(s byteState) bool { return s < hashed }) {
			u.free(from, to)
		}
	}
}

// free sends a part. Bytes that were freed before are those that the server has.
func (u *upload) free(from, to int64) {
	for i := from; i < to; i++ {
		if u.state[i] == hashed {
			u.sent[i], u.bytes[i], u.state[i] = u.bytes[i], 0, freed
		}
	}
}

// advance moves the prefix, which never falls: bytes were accepted by it.
func (u *upload) advance() {
	for _, s := range u.layers {
		if u.prefix >= s.Offset+s.Length {
			continue
		}
		u.prefix = max(u.prefix, s.Offset)
		for u.prefix < s.Offset+s.Length && u.state[u.prefix] >= hashed {
			u.prefix++
		}
		if u.prefix < s.Offset+s.Length {
			return
		}
	}
	u.prefix = u.layout.Size()
}

// put is what an earlier attempt has written.
func (u *upload) put(s tarball.Segment, content []byte, have []sys.Interval) {
	for _, i := range have {
		copy(u.bytes[s.Offset+i.From:], content[i.From:i.To])
		for at := i.From; at < i.To; at++ {
			u.state[s.Offset+at] = written
		}
	}
}

func (u *upload) requireSent(src cachetest.Blobs) {
	u.t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.free(0, u.layout.Size())
	for _, s := range u.layout.Segments() {
		want := s.Literal
		if s.IsBlob() {
			want = src[s.Blob]
		}
		require.True(u.t, bytes.Equal(want, u.sent[s.Offset:s.Offset+s.Length]), "segment at %d", s.Offset)
	}
}

// following checks what Progress is called with.
type following struct {
	t      testing.TB
	inCall atomic.Bool
	calls  int
	first  tarball.Progress
	last   tarball.Progress
}

func (f *following) report(p tarball.Progress) {
	assert.True(f.t, f.inCall.CompareAndSwap(false, true), "progress is reported by two goroutines at once")
	defer f.inCall.Store(false)
	if f.calls++; f.calls == 1 {
		f.first = p
	}
	assert.LessOrEqual(f.t, p.Done, p.Total)
	assert.GreaterOrEqual(f.t, p.Downloaded, f.last.Downloaded)
	assert.LessOrEqual(f.t, p.Reused, p.Done)
	f.last = p
	runtime.Gosched() // others could call it now
}

// rangeless is a source that says of itself that it has no ranges.
type rangeless struct{ cachetest.SourceFunc }

func (rangeless) IgnoresRange() bool { return true }

// Every kind of trouble, with windows smaller and larger than the buffers.
func TestFetchIntoAnUpload(t *testing.T) {
	kinds := map[string]func(s *scenario){
		"plain": func(*scenario) {},
		"no ranges": func(s *scenario) {
			s.job.Source = rangeless{s.read}
			s.onRead = func(_ v1.Hash, offset, _ int64) error {
				assert.Zero(s.t, offset)
				return nil
			}
		},
		"no ranges as an error": func(s *scenario) {
			s.onRead = func(_ v1.Hash, offset, _ int64) error {
				if offset > 0 {
					return &marked{noRange: true}
				}
				return nil
			}
			s.restarts = true
		},
		"no ranges, cut": func(s *scenario) {
			s.job.Source = rangeless{s.read}
			s.cut = true
			s.restarts = true // what is there comes again
		},
		"cut":       func(s *scenario) { s.cut = true },
		"try again": func(s *scenario) { s.fail = 3 },
		"wrong once": func(s *scenario) {
			s.wrong = map[v1.Hash]bool{s.layers[0].Digest: true, s.layers[4].Digest: true}
			s.extra = s.layers[0].Size + s.layers[4].Size
			s.restarts = true // what has come beyond the window by then is read again
		},
		"local": func(s *scenario) { s.local(0, s.src[s.layers[0].Digest]) },
		"local, short, the last": func(s *scenario) {
			s.local(4, s.src[s.layers[4].Digest][:s.layers[4].Size/2])
			s.partly = true
		},
		"local, all of them": func(s *scenario) {
			for i, l := range s.layers {
				s.local(i, s.src[l.Digest])
			}
		},
		"local, wrong": func(s *scenario) {
			s.local(0, cachetest.Noise(9, int(s.layers[0].Size)))
			s.reused = false
			s.restarts = true // likewise
		},
		"resumed": func(s *scenario) { s.have(0, false) },
		"resumed, no ranges": func(s *scenario) {
			s.job.Source = rangeless{s.read}
			s.have(0, false)
			s.restarts = true // what is there comes again
		},
		"resumed, wrong": func(s *scenario) {
			s.have(0, true)
			s.reused = false
			s.restarts = true // likewise
		},
		"out of order": func(s *scenario) { slices.Reverse(s.job.Layers) },
		"before": func(s *scenario) {
			s.job.Before = tarball.Progress{Done: 5, Total: 7, Downloaded: 2, Reused: 3}
		},
	}
	for _, window := range []struct{ bytes, unit int64 }{
		{10, 30}, {1000, 3000}, {50_000, 15_000}, {sys.HashBuffer + 999, sys.HashBuffer / 3}, {1 << 30, 5000},
	} {
		for _, connections := range []int{1, 16} {
			for kind, change := range kinds {
				t.Run(fmt.Sprintf("%d/%d/%s", window.bytes, connections, kind), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := newScenario(t, window.bytes, window.unit)
						change(s)
						s.run(connections)
					})
				})
			}
		}
	}
}

// scenario is one fetch into an upload.
type scenario struct {
	t      testing.TB
	src    cachetest.Blobs
	layers []v1.Descriptor
	upload *upload
	job    Job
	follow *following

	reused   bool  // what there is already is used
	partly   bool  // likewise, but less than all of it
	reusable int64 // bytes
	extra    int64 // bytes that are downloaded beside
	restarts bool  // likewise, but how many is not known

	mu       sync.Mutex
	onRead   func(d v1.Hash, offset, length int64) error
	requests map[v1.Hash]int
	cut      bool // every second body
	fail     int
	wrong    map[v1.Hash]bool // until they are distrusted
}

func newScenario(t testing.TB, window, unit int64) *scenario {
	s := &scenario{t: t, src: cachetest.Blobs{}, requests: map[v1.Hash]int{}, reused: true, follow: &following{t: t}}
	for i, size := range []int64{4*unit + 1, 1, 0, unit, 2*unit + 7} {
		s.layers = append(s.layers, s.src.Add(cachetest.Noise(byte(i+1), int(size))))
	}
	layout := mustLayout(t, testImage(t, s.layers...))
	s.upload = newUpload(t, layout, window)
	s.job = Job{Sink: s.upload, Layout: layout, Layers: layout.Layers(), Source: distrustful{s.read, s}, Progress: s.follow.report, Local: map[v1.Hash][]Local{}}
	return s
}

// distrustful is the scenario as a source.
type distrustful struct {
	cachetest.SourceFunc
	s *scenario
}

func (d distrustful) Distrust(digest v1.Hash) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	delete(d.s.wrong, digest)
}

func (s *scenario) read(ctx context.Context, d v1.Hash, offset, length int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.onRead != nil {
		if err := s.onRead(d, offset, length); err != nil {
			return nil, err
		}
	}
	if s.fail > 0 {
		s.fail--
		return nil, errors.New("later")
	}
	content := s.src[d][offset : offset+length]
	if s.wrong[d] {
		content = bytes.Clone(content)
		content[0] ^= 1
	}
	after := length
	if s.requests[d]++; s.cut && s.requests[d]%2 == 1 {
		after = length - length/3
	}
	return io.NopCloser(io.MultiReader(bytes.NewReader(content[:after]), failing{io.ErrUnexpectedEOF})), nil
}

func (s *scenario) local(layer int, content []byte) {
	s.reusable += int64(len(content))
	s.job.Local[s.layers[layer].Digest] = []Local{{R: bytes.NewReader(append(make([]byte, 7), content...)), Offset: 7}}
}

func (s *scenario) have(layer int, wrong bool) {
	l := s.layers[layer]
	content := s.src[l.Digest]
	if wrong {
		content = cachetest.Noise(9, int(l.Size))
	}
	have := []sys.Interval{{From: 3, To: l.Size / 4}, {From: l.Size / 2, To: l.Size/2 + 2}}
	for _, i := range have {
		s.reusable += i.To - i.From
	}
	at, _ := s.job.Layout.Layer(l.Digest)
	s.upload.put(at, content, have)
	s.job.Have = map[v1.Hash][]sys.Interval{l.Digest: have}
}

func (s *scenario) run(connections int) {
	f := testFetcher(connections)
	f.SetSizes(100_000, 200_000, 5)
	downloaded, err := f.Fetch(s.t.Context(), s.job)
	require.NoError(s.t, err)
	s.upload.requireSent(s.src)

	before, p := s.job.Before, s.follow.last
	var total int64
	for _, l := range s.layers {
		total += l.Size
	}
	assert.Equal(s.t, before.Total+total, p.Total)
	assert.Equal(s.t, before.Done+total, p.Done)
	assert.Equal(s.t, before.Downloaded+downloaded.Downloaded, p.Downloaded)
	assert.Equal(s.t, before.Total+total, s.follow.first.Total, "the total is known at the beginning")
	reused := p.Reused - before.Reused
	switch {
	case s.partly:
		assert.LessOrEqual(s.t, reused, s.reusable)
	case s.reused:
		assert.Equal(s.t, s.reusable, reused)
	default:
		assert.Zero(s.t, reused)
	}
	if s.restarts {
		assert.GreaterOrEqual(s.t, downloaded.Downloaded, total)
	} else {
		assert.Equal(s.t, total-reused+s.extra, downloaded.Downloaded)
	}
}

// A layer turns out to be wrong while the only connection has bytes of a later one,
// which is beyond the window then: the layer needs the connection.
func TestUploadRestartsWhileALaterLayerHasTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := cachetest.Blobs{}
		a, b := src.Add(cachetest.Noise(1, 16_000)), src.Add(cachetest.Noise(2, 4000))
		layout := mustLayout(t, testImage(t, a, b))
		u := newUpload(t, layout, 20_000)
		asked, restarted := make(chan struct{}), make(chan struct{})
		var once sync.Once
		at, _ := layout.Layer(a.Digest)
		u.beforeRead = func(offset, n int64) error {
			if offset+n == at.Offset+a.Size { // the layer's end is hashed when the later one was asked for
				<-asked
			}
			return nil
		}
		wrong := true
		fetcher := testFetcher(1)
		_, err := fetcher.Fetch(t.Context(), Job{Sink: u, Layout: layout, Events: restartEvents{restarted: func() { close(restarted) }}, Source: cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, offset, n int64) (io.ReadCloser, error) {
			switch {
			case d == b.Digest:
				once.Do(func() { close(asked) })
				<-restarted
			case wrong:
				if offset+n == a.Size {
					synctest.Wait() // what was fetched is hashed, so that the window reaches into the later layer
					wrong = false
				}
				return cachetest.Blobs{d: cachetest.Noise(3, 16_000)}.ReadRange(ctx, d, offset, n)
			}
			return src.ReadRange(ctx, d, offset, n)
		})})
		require.NoError(t, err)
		u.requireSent(src)
	})
}

type restartEvents struct {
	NoEvents
	restarted func()
}

func (e restartEvents) Restarted(v1.Hash) { e.restarted() }

// A stream that has no room waits while nothing is hashed; the context ends it.
func TestUploadEndsWithTheContext(t *testing.T) {
	for name, source := range map[string]func(src cachetest.Blobs) tarball.Source{
		"stream": func(src cachetest.Blobs) tarball.Source { return rangeless{src.ReadRange} },
		"ranges": func(src cachetest.Blobs) tarball.Source { return src },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := cachetest.Blobs{}
				layout := mustLayout(t, testImage(t, src.Add(cachetest.Noise(1, 10_000))))
				u := newUpload(t, layout, 1000)
				ctx, cancel := context.WithCancelCause(t.Context())
				u.beforeRead = func(int64, int64) error { <-ctx.Done(); return ctx.Err() }
				done := make(chan error, 1)
				var last atomic.Int64
				go func() {
					_, err := testFetcher(2).Fetch(ctx, Job{Sink: u, Layout: layout, Source: source(src), Progress: func(p tarball.Progress) { last.Store(p.Done) }})
					done <- err
				}()
				synctest.Wait()
				assert.Equal(t, int64(1000), last.Load(), "the window is full")
				reason := errors.New("interrupted")
				cancel(reason)
				err := <-done
				require.ErrorIs(t, err, reason)
				require.ErrorIs(t, err, context.Canceled)
			})
		})
	}
}

// A copy that waits for the window ends with the context too.
func TestUploadCopyEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := cachetest.Blobs{}
		layer := src.Add(cachetest.Noise(1, 10_000))
		layout := mustLayout(t, testImage(t, layer))
		u := newUpload(t, layout, 1000)
		reason := errors.New("too late")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, reason)
		defer cancel()
		u.beforeRead = func(int64, int64) error { <-ctx.Done(); return ctx.Err() }
		n, err := testFetcher(2).Fetch(ctx, Job{Sink: u, Layout: layout, Source: src, Local: map[v1.Hash][]Local{layer.Digest: {{R: bytes.NewReader(src[layer.Digest])}}}})
		require.ErrorIs(t, err, reason)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Zero(t, n.Downloaded)
	})
}

// The sink's own failure ends the fetch, of what is copied as of what is fetched: no
// other source helps.
func TestUploadFails(t *testing.T) {
	for _, local := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			src := cachetest.Blobs{}
			layer := src.Add(cachetest.Noise(1, 10_000))
			layout := mustLayout(t, testImage(t, layer))
			u := newUpload(t, layout, 1000)
			at, _ := layout.Layer(layer.Digest)
			u.failAfter = at.Offset + 5000
			c := &copying{}
			job := Job{Sink: u, Layout: layout, Source: src, Events: c}
			if local {
				job.Local = map[v1.Hash][]Local{layer.Digest: {{R: bytes.NewReader(src[layer.Digest])}}}
			}
			n, err := testFetcher(2).Fetch(t.Context(), job)
			require.ErrorContains(t, err, "write: the server is gone")
			assert.True(t, sys.IsWrite(err))
			assert.Empty(t, c.unreadable)
			assert.Equal(t, local, n.Downloaded == 0, "what can be copied is not fetched")
		})
	}
}

// A stream is one chunk for each gap. One that is not the next must not take a
// connection to wait with.
func TestFindInAStream(t *testing.T) {
	layout := mustLayout(t, testImage(t, sized("a", 10)))
	r := newRun(testFetcher(2), Job{Sink: newUpload(t, layout, 50), Source: cachetest.Blobs{}, Events: NoEvents{}})
	before := newLayer(tarball.Segment{Length: 10}, nil, nil, true)
	l := newLayer(tarball.Segment{Offset: 100, Length: 1000}, []sys.Interval{{From: 400, To: 500}}, nil, true)
	r.layers = []*layer{before, l}
	before.chunks[0].active = true
	assert.Nil(t, take(r), "the layer is not the next")
	before.verified = true
	first := take(r)
	require.NotNil(t, first)
	assert.Zero(t, first.chunk.start)
	assert.Nil(t, take(r), "the gap before it is not filled yet")
	first.chunk.pos = first.chunk.end
	second := take(r)
	require.NotNil(t, second)
	assert.EqualValues(t, 500, second.chunk.start)
}
