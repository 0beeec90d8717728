package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sourceFunc is a source made of a function.
type sourceFunc func(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error)

func (f sourceFunc) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	return f(ctx, digest, offset, length)
}

// testEngine cuts small layers into many ranges, and does not wait.
func testEngine(connections int) *Engine {
	e := NewEngine(&EngineOptions{Connections: connections})
	e.ranging = ranging{least: 1000, most: 4000, split: 100}
	e.wait = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	return e
}

func tempFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// requireFilled checks every byte of a file against the layout.
func requireFilled(t testing.TB, f *os.File, layout *Layout, src blobs) {
	t.Helper()
	have, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	require.Len(t, have, int(layout.Size()))
	for _, s := range layout.Segments() {
		want := s.Literal
		if s.IsBlob() {
			want = src[s.Blob]
		}
		require.True(t, bytes.Equal(want, have[s.Offset:s.Offset+s.Length]), "segment at %d", s.Offset)
	}
}

func TestFill(t *testing.T) {
	src := blobs{}
	a, b, empty := src.add(noise(1, 100_007)), src.add(noise(2, 100)), src.add(nil)
	layout := mustLayout(t, testImage(t, a, b, a, empty))
	for _, connections := range []int{1, 2, 16} {
		f := tempFile(t)
		var most atomic.Int64
		n, err := testEngine(connections).Fill(t.Context(), f, layout, src, &FillOptions{Progress: func(p Progress) {
			assert.Equal(t, a.Size+b.Size, p.Total)
			for was := most.Load(); p.Done > was && !most.CompareAndSwap(was, p.Done); was = most.Load() {
			}
		}})
		require.NoError(t, err)
		assert.Equal(t, a.Size+b.Size, n, "every byte is read once, a repeated layer too")
		assert.Equal(t, n, most.Load())
		requireFilled(t, f, layout, src)
	}
}

// The defaults too, with a layer of several ranges.
func TestFillWithDefaultRanges(t *testing.T) {
	src := blobs{}
	layout := mustLayout(t, testImage(t, src.add(noise(1, 3*minRange+5)), src.add(noise(2, 10))))
	f := tempFile(t)
	_, err := NewEngine(nil).Fill(t.Context(), f, layout, src, nil)
	require.NoError(t, err)
	requireFilled(t, f, layout, src)
}

// flaky cuts each body after so many bytes with an error.
type flaky struct {
	blobs
	after int64
	grows int64 // by so much with each request
	err   error

	mu       sync.Mutex
	requests []interval
}

func (s *flaky) ReadRange(ctx context.Context, d v1.Hash, offset, length int64) (io.ReadCloser, error) {
	s.mu.Lock()
	s.requests = append(s.requests, interval{offset, offset + length})
	after := s.after
	s.after += s.grows
	s.mu.Unlock()
	r, err := s.blobs.ReadRange(ctx, d, offset, length)
	if err != nil || length <= after {
		return r, err
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(r, after), failing{s.err})), nil
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

// A body that is cut is continued where it stopped, however often, and no byte
// is read twice.
func TestFillContinuesCutBodies(t *testing.T) {
	for _, cut := range []error{errors.New("connection reset"), io.ErrUnexpectedEOF, io.EOF} {
		src := &flaky{blobs: blobs{}, after: 77, err: cut}
		layer := src.add(noise(1, 20_000))
		layout := mustLayout(t, testImage(t, layer))
		f := tempFile(t)
		n, err := testEngine(4).Fill(t.Context(), f, layout, src, nil)
		require.NoError(t, err)
		assert.Equal(t, layer.Size, n)
		requireFilled(t, f, layout, src.blobs)
	}
}

// marked is an error with what a source may say of it.
type marked struct {
	temporary, noRange bool
	after              time.Duration
}

func (e *marked) Error() string             { return fmt.Sprintf("marked %+v", *e) }
func (e *marked) Temporary() bool           { return e.temporary }
func (e *marked) IgnoresRange() bool        { return e.noRange }
func (e *marked) RetryAfter() time.Duration { return e.after }

func TestFillGivesUpWithoutProgress(t *testing.T) {
	for _, c := range []struct {
		err   error
		asked int
	}{
		{errors.New("anything"), maxAttempts},
		{&marked{temporary: true}, maxAttempts},
		{&marked{temporary: false}, 1},
	} {
		asked := 0
		layer := blobs{}.add(noise(1, 50)) // one range
		_, err := testEngine(4).Fill(t.Context(), tempFile(t), mustLayout(t, testImage(t, layer)), sourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
			asked++
			return nil, c.err
		}), nil)
		require.ErrorIs(t, err, c.err)
		assert.ErrorContains(t, err, layer.Digest.String(), "the error names the layer")
		assert.Equal(t, c.asked, asked)
	}
}

func TestFillWaitsAsAskedOrLonger(t *testing.T) {
	var waits []time.Duration
	e := testEngine(1)
	e.wait = func(_ context.Context, d time.Duration) error { waits = append(waits, d); return nil }
	layer := blobs{}.add(noise(1, 50))
	fail := func(err error) {
		waits = nil
		_, got := e.Fill(t.Context(), tempFile(t), mustLayout(t, testImage(t, layer)), sourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
			return nil, err
		}), nil)
		require.ErrorIs(t, got, err)
		require.Len(t, waits, maxAttempts-1)
	}
	fail(&marked{temporary: true, after: 7 * time.Second})
	assert.Equal(t, 7*time.Second, waits[0])
	fail(&marked{temporary: true, after: 24 * time.Hour})
	assert.Equal(t, 2*longestWait, waits[0], "nobody stops a run for a day")
	fail(errors.New("anything"))
	for i, d := range waits {
		full := firstWait << i
		assert.True(t, full/2 <= d && d <= full, "wait %d is %v", i, d)
	}
}

// While one image waits, its connection is another's.
func TestFillReleasesItsConnectionWhileItWaits(t *testing.T) {
	src := blobs{}
	bad, good := src.add(noise(1, 50)), src.add(noise(2, 5000))
	e := testEngine(1)
	waiting, proceed := make(chan struct{}), make(chan struct{})
	e.wait = func(context.Context, time.Duration) error {
		waiting <- struct{}{}
		<-proceed
		return nil
	}
	failed := false
	broken := make(chan error)
	go func() {
		_, err := e.Fill(t.Context(), tempFile(t), mustLayout(t, testImage(t, bad)), sourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
			if !failed {
				failed = true
				return nil, errors.New("later")
			}
			return src.ReadRange(ctx, d, off, n)
		}), nil)
		broken <- err
	}()
	<-waiting
	_, err := e.Fill(t.Context(), tempFile(t), mustLayout(t, testImage(t, good)), src, nil)
	require.NoError(t, err)
	close(proceed)
	require.NoError(t, <-broken)
}

// A source without ranges gives a blob from its beginning alone. Cut, it begins
// again, and what is there is passed over.
func TestFillFallsBackToOneStream(t *testing.T) {
	for _, after := range []int64{1 << 40, 3001} {
		// Each connection brings 3001 bytes more.
		src := &flaky{blobs: blobs{}, after: after, grows: 3001, err: io.ErrUnexpectedEOF}
		layout := mustLayout(t, testImage(t, src.add(noise(1, 20_000)), src.add(noise(2, 300))))
		f := tempFile(t)
		_, err := testEngine(4).Fill(t.Context(), f, layout, sourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
			if off > 0 {
				return nil, &marked{noRange: true}
			}
			return src.ReadRange(ctx, d, off, n)
		}), nil)
		require.NoError(t, err)
		requireFilled(t, f, layout, src.blobs)
	}
}

// distrusting records what the engine says of its source.
type distrusting struct {
	sourceFunc
	distrusted []v1.Hash
}

func (d *distrusting) Distrust(digest v1.Hash) { d.distrusted = append(d.distrusted, digest) }

// Wrong bytes are fetched once more, after the source was told; then it ends.
func TestFillRefetchesWrongBytesOnce(t *testing.T) {
	for _, wrongTimes := range []int{1, 2} {
		src := blobs{}
		layer := src.add(noise(1, 500))
		served := 0
		source := &distrusting{sourceFunc: func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
			served++
			content := bytes.Clone(src[d])
			if served <= wrongTimes {
				content[499] ^= 1
			}
			return blobs{d: content}.ReadRange(ctx, d, off, n)
		}}
		layout := mustLayout(t, testImage(t, layer))
		f := tempFile(t)
		e := testEngine(1)
		n, err := e.Fill(t.Context(), f, layout, source, nil)
		assert.Equal(t, []v1.Hash{layer.Digest}, source.distrusted)
		assert.Equal(t, 2*layer.Size, n)
		assert.Equal(t, 2, served)
		if wrongTimes == 1 {
			require.NoError(t, err)
			requireFilled(t, f, layout, src)
			continue
		}
		require.ErrorIs(t, err, ErrBlobDigest)
		assert.ErrorContains(t, err, layer.Digest.String())
	}
}

func TestFillRefusesWrongSizes(t *testing.T) {
	right := noise(1, 500)
	layer := blobs{}.add(right)
	for name, c := range map[string]struct {
		content []byte
		says    string
	}{
		"short": {right[:499], "ends after 499 of the 500 bytes"},
		"empty": {nil, "ends after 0 of the 500 bytes"},
		"long":  {append(bytes.Clone(right), 0), "more than the 500 bytes"},
	} {
		layout := mustLayout(t, testImage(t, layer, sized("", 0)))
		f := tempFile(t)
		_, err := testEngine(1).Fill(t.Context(), f, layout, sourceFunc(func(_ context.Context, _ v1.Hash, off, _ int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(c.content[min(off, int64(len(c.content))):])), nil
		}), nil)
		require.ErrorIs(t, err, ErrBlobSize, name)
		assert.ErrorContains(t, err, c.says, name)
		info, err := f.Stat()
		require.NoError(t, err)
		assert.LessOrEqual(t, info.Size(), layout.Size(), "nothing is written beyond the tarball")
	}
}

// One byte too many right behind a full buffer is seen too.
func TestFillSeesAByteTooMany(t *testing.T) {
	content := noise(1, readBuffer)
	layout := mustLayout(t, testImage(t, blobs{}.add(content)))
	_, err := NewEngine(nil).Fill(t.Context(), tempFile(t), layout, sourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(content), bytes.NewReader([]byte{0}))), nil
	}), nil)
	require.ErrorIs(t, err, ErrBlobSize)
}

// What an earlier run wrote is not read again, and is proven all the same.
func TestFillResumes(t *testing.T) {
	src := &flaky{blobs: blobs{}, after: 1 << 40}
	layer := src.add(noise(1, 20_000))
	layout := mustLayout(t, testImage(t, layer))
	for name, lie := range map[string]bool{"true": false, "a lie": true} {
		src.requests = nil
		f := tempFile(t)
		done := []interval{{0, 5000}, {7000, 12_000}}
		for _, s := range layout.Segments() {
			for _, d := range done {
				if s.IsBlob() && !lie {
					_, err := f.WriteAt(src.blobs[s.Blob][d.from:d.to], s.Offset+d.from)
					require.NoError(t, err)
				}
			}
		}
		var first, last Progress
		source := &distrusting{sourceFunc: src.ReadRange}
		n, err := testEngine(1).Fill(t.Context(), f, layout, source, &FillOptions{
			done: map[v1.Hash][]interval{layer.Digest: done},
			Progress: func(p Progress) {
				if first.Total == 0 {
					first = p
				}
				last = p
			},
		})
		require.NoError(t, err, name)
		assert.Equal(t, Progress{Done: 10_000, Total: 20_000}, first)
		assert.Equal(t, Progress{Done: 20_000, Total: 20_000}, last)
		requireFilled(t, f, layout, src.blobs)
		assert.Empty(t, source.distrusted, "a journal that lies is not the source's fault")
		if lie {
			assert.Equal(t, int64(10_000+20_000), n, "what lacked, and then all of it")
			continue
		}
		assert.Equal(t, int64(10_000), n)
		for _, r := range src.requests {
			for _, d := range done {
				assert.True(t, r.to <= d.from || d.to <= r.from, "%v was there: %v", d, r)
			}
		}
	}
}

// A connection that hangs does not hold the end up: the others take all of its
// range but what it is about to write.
func TestFillSplitsTheLastRange(t *testing.T) {
	src := blobs{}
	layer := src.add(noise(1, 3900)) // one range
	layout := mustLayout(t, testImage(t, layer))
	f := tempFile(t)
	synctest.Test(t, func(t *testing.T) {
		e := testEngine(4)
		e.ranging.least = 4000
		proceed := make(chan struct{})
		var read atomic.Int64
		first := true
		var mu sync.Mutex
		done := make(chan error, 1)
		go func() {
			_, err := e.Fill(t.Context(), f, layout, sourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
				mu.Lock()
				defer mu.Unlock()
				if first {
					first = false
					return &hanging{proceed, bytes.NewReader(src[d][off : off+n])}, nil
				}
				return src.ReadRange(ctx, d, off, n)
			}), &FillOptions{Progress: func(p Progress) { read.Store(p.Done) }})
			done <- err
		}()
		synctest.Wait() // all that can be done without the first is done
		assert.GreaterOrEqual(t, read.Load(), layer.Size-2*e.ranging.split, "bytes there while the first connection hangs")
		close(proceed)
		require.NoError(t, <-done)
	})
	requireFilled(t, f, layout, src)
}

// hanging gives nothing until proceed is closed.
type hanging struct {
	proceed chan struct{}
	*bytes.Reader
}

func (h *hanging) Read(p []byte) (int, error) { <-h.proceed; return h.Reader.Read(p) }
func (h *hanging) Close() error               { return nil }

func TestFillUsesAllConnectionsAndNoMore(t *testing.T) {
	src := blobs{}
	layout := mustLayout(t, testImage(t, src.add(noise(1, 50_000)), src.add(noise(2, 50_000))))
	f := tempFile(t)
	synctest.Test(t, func(t *testing.T) {
		var open, most atomic.Int32
		proceed := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			_, err := testEngine(5).Fill(t.Context(), f, layout, sourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
				now := open.Add(1)
				for was := most.Load(); now > was && !most.CompareAndSwap(was, now); was = most.Load() {
				}
				<-proceed
				r, err := src.ReadRange(ctx, d, off, n)
				return &closing{r, func() { open.Add(-1) }}, err
			}), nil)
			done <- err
		}()
		synctest.Wait()
		assert.EqualValues(t, 5, open.Load())
		close(proceed)
		require.NoError(t, <-done)
		assert.EqualValues(t, 5, most.Load())
		assert.Zero(t, open.Load(), "every reader was closed")
	})
}

type closing struct {
	io.ReadCloser
	closed func()
}

func (c *closing) Close() error { c.closed(); return c.ReadCloser.Close() }

func TestFillReportsTheSide(t *testing.T) {
	src := blobs{}
	layout := mustLayout(t, testImage(t, src.add(noise(1, 10))))
	_, err := testEngine(1).Fill(t.Context(), tempFile(t), layout, blobs{}, nil)
	require.ErrorContains(t, err, "read: no blob")

	readOnly, err := os.Open(tempFile(t).Name())
	require.NoError(t, err)
	defer readOnly.Close()
	_, err = testEngine(1).Fill(t.Context(), readOnly, layout, src, nil)
	require.ErrorContains(t, err, "write: ")
}

// One layer fails while another one hangs: the context must end the other, and
// the error must be the first one's, not "context canceled".
func TestFillEndsWhenOneLayerFails(t *testing.T) {
	src := blobs{}
	good, bad := src.add(noise(1, 10)), src.add(noise(2, 10))
	waiting := make(chan struct{})
	_, err := testEngine(2).Fill(t.Context(), tempFile(t), mustLayout(t, testImage(t, good, bad)), sourceFunc(func(ctx context.Context, d v1.Hash, _, _ int64) (io.ReadCloser, error) {
		if d == good.Digest {
			close(waiting)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		<-waiting
		return nil, &marked{}
	}), nil)
	var want *marked
	require.ErrorAs(t, err, &want)
	assert.ErrorContains(t, err, bad.Digest.String())
}

func TestFillCanceled(t *testing.T) {
	src := blobs{}
	layout := mustLayout(t, testImage(t, src.add(noise(1, 10))))
	reason := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := testEngine(2).Fill(ctx, tempFile(t), layout, sourceFunc(func(ctx context.Context, _ v1.Hash, _, _ int64) (io.ReadCloser, error) {
		cancel(reason)
		<-ctx.Done()
		return nil, ctx.Err()
	}), nil)
	require.Equal(t, reason, err)
}
