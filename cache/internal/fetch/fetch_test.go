package fetch

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
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

func testImage(t testing.TB, layers ...v1.Descriptor) *tarball.Image {
	t.Helper()
	manifest, config := cachetest.Pair(layers...)
	img, err := tarball.NewImage(cachetest.Ref, cachetest.Marshal(manifest), config)
	require.NoError(t, err)
	return img
}

func mustLayout(t testing.TB, img *tarball.Image) *tarball.Layout {
	t.Helper()
	l, err := tarball.NewLayout(img, tarball.Provenance{Source: "ghcr.io/pytorch/ci-image:name-2f5e", Branch: "main"})
	require.NoError(t, err)
	return l
}

// sized is a layer without content.
func sized(seed string, size int64) v1.Descriptor {
	return v1.Descriptor{MediaType: types.DockerLayer, Digest: cachetest.Digest([]byte(seed)), Size: size}
}

// testFetcher cuts small layers into many ranges.
func testFetcher(connections int) *Fetcher {
	f := New(connections)
	f.SetSizes(1000, 4000, 100)
	return f
}

func tempFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// requireFilled checks every byte of a file against the layout.
func requireFetched(t testing.TB, f *os.File, layout *tarball.Layout, src cachetest.Blobs) {
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

func TestFetch(t *testing.T) {
	src := cachetest.Blobs{}
	a, b, empty := src.Add(cachetest.Noise(1, 100_007)), src.Add(cachetest.Noise(2, 100)), src.Add(nil)
	layout := mustLayout(t, testImage(t, a, b, a, empty))
	for _, connections := range []int{1, 2, 16} {
		f := tempFile(t)
		var most atomic.Int64
		n, err := testFetcher(connections).Fetch(t.Context(), Job{Sink: File{f}, Layout: layout, Source: src, Progress: func(p tarball.Progress) {
			assert.Equal(t, a.Size+b.Size, p.Total)
			for was := most.Load(); p.Done > was && !most.CompareAndSwap(was, p.Done); was = most.Load() {
			}
		}})
		require.NoError(t, err)
		assert.Equal(t, a.Size+b.Size, n.Downloaded, "every byte is read once, a repeated layer too")
		assert.Equal(t, n.Downloaded, most.Load())
		requireFetched(t, f, layout, src)
	}
}

// The defaults too, with a layer of several ranges.
func TestFetchWithDefaultRanges(t *testing.T) {
	src := cachetest.Blobs{}
	layout := mustLayout(t, testImage(t, src.Add(cachetest.Noise(1, 3*int(defaultSizes.whole)+5)), src.Add(cachetest.Noise(2, 10))))
	f := tempFile(t)
	_, err := New(0).Fetch(t.Context(), Job{Sink: File{f}, Layout: layout, Source: src})
	require.NoError(t, err)
	requireFetched(t, f, layout, src)
}

// flaky cuts each body after so many bytes with an error.
type flaky struct {
	cachetest.Blobs
	after int64
	grows int64 // by so much with each request
	err   error

	mu       sync.Mutex
	requests []sys.Interval
}

func (s *flaky) ReadRange(ctx context.Context, d v1.Hash, offset, length int64) (io.ReadCloser, error) {
	s.mu.Lock()
	s.requests = append(s.requests, sys.Interval{From: offset, To: offset + length})
	after := s.after
	s.after += s.grows
	s.mu.Unlock()
	r, err := s.Blobs.ReadRange(ctx, d, offset, length)
	if err != nil || length <= after {
		return r, err
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(r, after), failing{s.err})), nil
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

// A body that is cut is continued where it stopped, however often, and no byte
// is read twice.
func TestFetchContinuesCutBodies(t *testing.T) {
	for _, cut := range []error{errors.New("connection reset"), io.ErrUnexpectedEOF, io.EOF} {
		synctest.Test(t, func(t *testing.T) {
			src := &flaky{Blobs: cachetest.Blobs{}, after: 77, err: cut}
			layer := src.Add(cachetest.Noise(1, 20_000))
			layout := mustLayout(t, testImage(t, layer))
			f := tempFile(t)
			n, err := testFetcher(4).Fetch(t.Context(), Job{Sink: File{f}, Layout: layout, Source: src})
			require.NoError(t, err)
			assert.Equal(t, layer.Size, n.Downloaded)
			requireFetched(t, f, layout, src.Blobs)
		})
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

func TestFetchGivesUpWithoutProgress(t *testing.T) {
	for _, c := range []struct {
		err   error
		asked int
	}{
		{errors.New("anything"), maxAttempts},
		{&marked{temporary: true}, maxAttempts},
		{&marked{temporary: false}, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			layer := cachetest.Blobs{}.Add(cachetest.Noise(1, 50)) // one range
			_, err := testFetcher(4).Fetch(t.Context(), Job{Sink: File{tempFile(t)}, Layout: mustLayout(t, testImage(t, layer)), Source: cachetest.SourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
				asked++
				return nil, c.err
			})})
			require.ErrorIs(t, err, c.err)
			assert.ErrorContains(t, err, layer.Digest.String(), "the error names the layer")
			assert.Equal(t, c.asked, asked)
		})
	}
}

func TestFetchWaitsAsAskedOrLonger(t *testing.T) {
	layer := cachetest.Blobs{}.Add(cachetest.Noise(1, 50))
	fail := func(err error) (waits []time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			var last time.Time
			_, got := testFetcher(1).Fetch(t.Context(), Job{Sink: File{tempFile(t)}, Layout: mustLayout(t, testImage(t, layer)), Source: cachetest.SourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
				if !last.IsZero() {
					waits = append(waits, time.Since(last))
				}
				last = time.Now()
				return nil, err
			})})
			require.ErrorIs(t, got, err)
		})
		return waits
	}
	for asked, least := range map[time.Duration]time.Duration{7 * time.Second: 7 * time.Second, 24 * time.Hour: longestDelay} {
		waits := fail(&marked{temporary: true, after: asked})
		require.GreaterOrEqual(t, len(waits), maxAttempts-1)
		for _, d := range waits {
			assert.GreaterOrEqual(t, d, least)
			assert.LessOrEqual(t, d, max(least, maxDelay)*5/4, "no source stops a run for a day")
		}
	}
	waits := fail(errors.New("anything"))
	require.Len(t, waits, maxAttempts-1)
	for i, d := range waits {
		full := firstDelay << i
		assert.True(t, full/2 <= d && d <= full+tick, "wait %d is %v", i, d)
	}
}

// While one image waits, its connection is another's.
func TestFetchReleasesItsConnectionWhileItWaits(t *testing.T) {
	src := cachetest.Blobs{}
	bad, good := src.Add(cachetest.Noise(1, 50)), src.Add(cachetest.Noise(2, 5000))
	synctest.Test(t, func(t *testing.T) {
		fetcher := testFetcher(1)
		failed := false
		broken := make(chan error)
		go func() {
			_, err := fetcher.Fetch(t.Context(), Job{Sink: File{tempFile(t)}, Layout: mustLayout(t, testImage(t, bad)), Source: cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
				if !failed {
					failed = true
					return nil, &marked{temporary: true, after: time.Minute}
				}
				return src.ReadRange(ctx, d, off, n)
			})})
			broken <- err
		}()
		synctest.Wait()
		begun := time.Now()
		_, err := fetcher.Fetch(t.Context(), Job{Sink: File{tempFile(t)}, Layout: mustLayout(t, testImage(t, good)), Source: src})
		require.NoError(t, err)
		assert.Less(t, time.Since(begun), time.Minute)
		require.NoError(t, <-broken)
	})
}

// A source without ranges gives a blob from its beginning alone. Cut, it begins
// again, and what is there is passed over.
func TestFetchFallsBackToOneStream(t *testing.T) {
	for _, after := range []int64{1 << 40, 3001} {
		synctest.Test(t, func(t *testing.T) {
			// Each connection brings 3001 bytes more.
			src := &flaky{Blobs: cachetest.Blobs{}, after: after, grows: 3001, err: io.ErrUnexpectedEOF}
			layout := mustLayout(t, testImage(t, src.Add(cachetest.Noise(1, 20_000)), src.Add(cachetest.Noise(2, 300))))
			f := tempFile(t)
			_, err := testFetcher(4).Fetch(t.Context(), Job{Sink: File{f}, Layout: layout, Source: cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
				if off > 0 {
					return nil, &marked{noRange: true}
				}
				return src.ReadRange(ctx, d, off, n)
			})})
			require.NoError(t, err)
			requireFetched(t, f, layout, src.Blobs)
		})
	}
}

// distrusting records what the fetcher reports of its source.
type distrusting struct {
	cachetest.SourceFunc
	distrusted []v1.Hash
}

func (d *distrusting) Distrust(digest v1.Hash) { d.distrusted = append(d.distrusted, digest) }

// Wrong bytes are fetched once more, after Distrust was called; then it ends.
func TestFetchRefetchesWrongBytesOnce(t *testing.T) {
	for _, wrongTimes := range []int{1, 2} {
		src := cachetest.Blobs{}
		layer := src.Add(cachetest.Noise(1, 500))
		served := 0
		source := &distrusting{SourceFunc: func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
			served++
			content := bytes.Clone(src[d])
			if served <= wrongTimes {
				content[499] ^= 1
			}
			return cachetest.Blobs{d: content}.ReadRange(ctx, d, off, n)
		}}
		layout := mustLayout(t, testImage(t, layer))
		f := tempFile(t)
		fetcher := testFetcher(1)
		n, err := fetcher.Fetch(t.Context(), Job{Sink: File{f}, Layout: layout, Source: source})
		assert.Equal(t, []v1.Hash{layer.Digest}, source.distrusted)
		assert.Equal(t, 2*layer.Size, n.Downloaded)
		assert.Equal(t, 2, served)
		if wrongTimes == 1 {
			require.NoError(t, err)
			requireFetched(t, f, layout, src)
			continue
		}
		require.ErrorIs(t, err, tarball.ErrDigest)
		assert.ErrorContains(t, err, layer.Digest.String())
	}
}

// A layer of 0 bytes is never read, so no source is at fault.
func TestFetchOfNothingWithAnotherDigest(t *testing.T) {
	layer := cachetest.Blobs{}.Add(cachetest.Noise(1, 500))
	layer.Size = 0
	layout := mustLayout(t, testImage(t, layer))
	fetcher := testFetcher(1)
	_, err := fetcher.Fetch(t.Context(), Job{Sink: File{tempFile(t)}, Layout: layout, Source: reporting{}})
	require.ErrorIs(t, err, tarball.ErrDigest)
	assert.ErrorContains(t, err, "the manifest states that it has 0 bytes, but the digest of 0 bytes is sha256:e3b0c44298fc1c14")
	assert.NotContains(t, err.Error(), "downloaded twice")

	// And where nothing is known of where bytes came from, the text has no gap.
	src := cachetest.Blobs{}
	layer = src.Add(cachetest.Noise(1, 500))
	src[layer.Digest][0] ^= 1
	_, err = fetcher.Fetch(t.Context(), Job{Sink: File{tempFile(t)}, Layout: mustLayout(t, testImage(t, layer)), Source: reporting{src}})
	require.ErrorIs(t, err, tarball.ErrDigest)
	assert.ErrorContains(t, err, " from the source; ")
}

// reporting is a source that knows no origin.
type reporting struct{ cachetest.Blobs }

func (reporting) Origins(v1.Hash) []string { return nil }

func TestFetchRefusesWrongSizes(t *testing.T) {
	right := cachetest.Noise(1, 500)
	layer := cachetest.Blobs{}.Add(right)
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
		_, err := testFetcher(1).Fetch(t.Context(), Job{Sink: File{f}, Layout: layout, Source: cachetest.SourceFunc(func(_ context.Context, _ v1.Hash, off, _ int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(c.content[min(off, int64(len(c.content))):])), nil
		})})
		require.ErrorIs(t, err, tarball.ErrSize, name)
		assert.ErrorContains(t, err, c.says, name)
		info, err := f.Stat()
		require.NoError(t, err)
		assert.LessOrEqual(t, info.Size(), layout.Size(), "nothing is written beyond the tarball")
	}
}

// One byte too many right behind a full buffer is seen too.
func TestFetchSeesAByteTooMany(t *testing.T) {
	content := cachetest.Noise(1, sys.ReadBuffer)
	layout := mustLayout(t, testImage(t, cachetest.Blobs{}.Add(content)))
	_, err := New(0).Fetch(t.Context(), Job{Sink: File{tempFile(t)}, Layout: layout, Source: cachetest.SourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(content), bytes.NewReader([]byte{0}))), nil
	})})
	require.ErrorIs(t, err, tarball.ErrSize)
}

// What an earlier attempt wrote is not read again, and is verified all the same.
func TestFetchResumes(t *testing.T) {
	src := &flaky{Blobs: cachetest.Blobs{}, after: 1 << 40}
	layer := src.Add(cachetest.Noise(1, 20_000))
	layout := mustLayout(t, testImage(t, layer))
	for name, lie := range map[string]bool{"true": false, "a lie": true} {
		src.requests = nil
		f := tempFile(t)
		done := []sys.Interval{{From: 0, To: 5000}, {From: 7000, To: 12_000}}
		for _, s := range layout.Segments() {
			for _, d := range done {
				if s.IsBlob() && !lie {
					_, err := f.WriteAt(src.Blobs[s.Blob][d.From:d.To], s.Offset+d.From)
					require.NoError(t, err)
				}
			}
		}
		var first, last tarball.Progress
		source := &distrusting{SourceFunc: src.ReadRange}
		n, err := testFetcher(1).Fetch(t.Context(), Job{Sink: File{f}, Layout: layout, Source: source, Have: map[v1.Hash][]sys.Interval{layer.Digest: done},
			Progress: func(p tarball.Progress) {
				if first.Total == 0 {
					first = p
				}
				last = p
			}})
		require.NoError(t, err, name)
		assert.Equal(t, tarball.Progress{Done: 10_000, Total: 20_000, Reused: 10_000}, first)
		want := tarball.Progress{Done: 20_000, Total: 20_000, Downloaded: 10_000, Reused: 10_000}
		if lie {
			want.Downloaded, want.Reused = 30_000, 0
		}
		assert.Equal(t, want, last)
		requireFetched(t, f, layout, src.Blobs)
		assert.Empty(t, source.distrusted, "a journal that lies is not the source's fault")
		if lie {
			assert.Equal(t, int64(10_000+20_000), n.Downloaded, "what lacked, and then all of it")
			continue
		}
		assert.Equal(t, int64(10_000), n.Downloaded)
		for _, r := range src.requests {
			for _, d := range done {
				assert.True(t, r.To <= d.From || d.To <= r.From, "%v was there: %v", d, r)
			}
		}
	}
}

func TestFetchUsesAllConnectionsAndNoMore(t *testing.T) {
	src := cachetest.Blobs{}
	layout := mustLayout(t, testImage(t, src.Add(cachetest.Noise(1, 50_000)), src.Add(cachetest.Noise(2, 50_000))))
	f := tempFile(t)
	synctest.Test(t, func(t *testing.T) {
		var open, most atomic.Int32
		proceed := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			_, err := testFetcher(5).Fetch(t.Context(), Job{Sink: File{f}, Layout: layout, Source: cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
				now := open.Add(1)
				for was := most.Load(); now > was && !most.CompareAndSwap(was, now); was = most.Load() {
				}
				<-proceed
				r, err := src.ReadRange(ctx, d, off, n)
				return &closing{r, func() { open.Add(-1) }}, err
			})})
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

func TestFetchReportsTheSide(t *testing.T) {
	src := cachetest.Blobs{}
	layout := mustLayout(t, testImage(t, src.Add(cachetest.Noise(1, 10))))
	_, err := testFetcher(1).Fetch(t.Context(), Job{Sink: File{tempFile(t)}, Layout: layout, Source: cachetest.Blobs{}})
	require.ErrorContains(t, err, "read: no blob")

	readOnly, err := os.Open(tempFile(t).Name())
	require.NoError(t, err)
	defer readOnly.Close()
	_, err = testFetcher(1).Fetch(t.Context(), Job{Sink: File{readOnly}, Layout: layout, Source: src})
	require.ErrorContains(t, err, "write: ")
}

// One layer fails while another one hangs: the context must end the other, and
// the error must be the first one's, not "context canceled".
func TestFetchEndsWhenOneLayerFails(t *testing.T) {
	src := cachetest.Blobs{}
	good, bad := src.Add(cachetest.Noise(1, 10)), src.Add(cachetest.Noise(2, 10))
	waiting := make(chan struct{})
	_, err := testFetcher(2).Fetch(t.Context(), Job{Sink: File{tempFile(t)}, Layout: mustLayout(t, testImage(t, good, bad)), Source: cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, _, _ int64) (io.ReadCloser, error) {
		if d == good.Digest {
			close(waiting)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		<-waiting
		return nil, &marked{}
	})})
	var want *marked
	require.ErrorAs(t, err, &want)
	assert.ErrorContains(t, err, bad.Digest.String())
}

func TestFetchCanceled(t *testing.T) {
	src := cachetest.Blobs{}
	layout := mustLayout(t, testImage(t, src.Add(cachetest.Noise(1, 10))))
	reason := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := testFetcher(2).Fetch(ctx, Job{Sink: File{tempFile(t)}, Layout: layout, Source: cachetest.SourceFunc(func(ctx context.Context, _ v1.Hash, _, _ int64) (io.ReadCloser, error) {
		cancel(reason)
		<-ctx.Done()
		return nil, ctx.Err()
	})})
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, context.Canceled)
}

// What is required is an error when it is missing, and no panic of a goroutine.
func TestFetchRequires(t *testing.T) {
	src := cachetest.Blobs{}
	layout := mustLayout(t, testImage(t, src.Add(cachetest.Noise(1, 10))))
	whole := Job{Sink: File{tempFile(t)}, Layout: layout, Source: src}
	for _, without := range []func(*Job){
		func(j *Job) { j.Sink = nil }, func(j *Job) { j.Layout = nil }, func(j *Job) { j.Source = nil },
	} {
		job := whole
		without(&job)
		n, err := New(0).Fetch(t.Context(), job)
		require.ErrorContains(t, err, "required")
		assert.Zero(t, n.Downloaded)
	}
	_, err := New(-1).Fetch(t.Context(), whole)
	require.NoError(t, err)
}

// Errors that no repetition helps with end a fetch at once, and so does a source that
// returns nothing at all.
func TestFetchEndsAtOnce(t *testing.T) {
	refused := errors.New("refused")
	for says, source := range map[string]cachetest.SourceFunc{
		"refused": func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
			return nil, tarball.Permanent(refused)
		},
		"neither a reader nor": func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) { return nil, nil },
		"of 20000 bytes: refused": func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
			return io.NopCloser(failing{tarball.Permanent(refused)}), nil
		},
	} {
		layout := mustLayout(t, testImage(t, cachetest.Blobs{}.Add(cachetest.Noise(1, 20_000))))
		fetcher := testFetcher(4)
		asked := atomic.Int32{}
		_, err := fetcher.Fetch(t.Context(), Job{Sink: File{tempFile(t)}, Layout: layout, Source: cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
			asked.Add(1)
			return source(ctx, d, off, n)
		})})
		require.ErrorContains(t, err, says)
		assert.LessOrEqual(t, asked.Load(), int32(4), "once for each connection")
	}
}

// A source that says that it has no ranges, and fails at offset 0 too, fails like any
// other.
func TestFetchFromNeitherRangesNorStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		layout := mustLayout(t, testImage(t, cachetest.Blobs{}.Add(cachetest.Noise(1, 20_000))))
		_, err := testFetcher(4).Fetch(t.Context(), Job{Sink: newUpload(t, layout, 0), Layout: layout, Source: cachetest.SourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
			return nil, &marked{noRange: true, temporary: true}
		})})
		require.ErrorAs(t, err, new(*marked))
	})
}

// The caller's cause may be of a type that cannot be compared.
func TestFetchCanceledByAList(t *testing.T) {
	src := cachetest.Blobs{}
	layout := mustLayout(t, testImage(t, src.Add(cachetest.Noise(1, 10))))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(list{errors.New("a"), errors.New("b")})
	_, err := testFetcher(1).Fetch(ctx, Job{Sink: File{tempFile(t)}, Layout: layout, Source: src})
	require.ErrorAs(t, err, new(list))
}

type list []error

func (l list) Error() string { return errors.Join(l...).Error() }

// Progress is right with many connections, into a file, of what is copied and restarted
// too, and is never called by two goroutines at once.
func TestFetchReportsProgress(t *testing.T) {
	src := cachetest.Blobs{}
	remote, local, wrong := src.Add(cachetest.Noise(1, 300_000)), src.Add(cachetest.Noise(2, 50_000)), src.Add(cachetest.Noise(3, 40_000))
	layout := mustLayout(t, testImage(t, remote, local, wrong))
	f := tempFile(t)
	progress := &following{t: t}
	before := tarball.Progress{Done: 10, Total: 10, Downloaded: 4, Reused: 6}
	n, err := testFetcher(16).Fetch(t.Context(), Job{
		Sink: File{f}, Layout: layout, Source: src, Before: before, Progress: progress.report,
		Local: map[v1.Hash][]Local{local.Digest: {localFile(t, src[local.Digest])}, wrong.Digest: {localFile(t, cachetest.Noise(4, 40_000))}},
	})
	require.NoError(t, err)
	requireFetched(t, f, layout, src)
	assert.Equal(t, remote.Size+wrong.Size, n.Downloaded)
	assert.Equal(t, tarball.Progress{Done: 10, Total: 390_010, Downloaded: 4, Reused: 6}, progress.first)
	assert.Equal(t, tarball.Progress{Done: 390_010, Total: 390_010, Downloaded: 340_004, Reused: 50_006}, progress.last)
}

// After a failure the journal contains every byte that is in the sink, also those
// since its last line.
func TestFetchJournalsWhatItLeaves(t *testing.T) {
	src := &flaky{Blobs: cachetest.Blobs{}, after: 77, err: tarball.Permanent(errors.New("refused"))}
	layer := src.Add(cachetest.Noise(1, 20_000))
	layout := mustLayout(t, testImage(t, layer))
	f, log := tempFile(t), tempFile(t)
	journal, err := NewJournal(log, layout, "", nil)
	require.NoError(t, err)
	n, err := testFetcher(4).Fetch(t.Context(), Job{Sink: File{f}, Layout: layout, Source: src, Journal: journal})
	require.ErrorContains(t, err, "refused")
	assert.Positive(t, n.Downloaded)
	content, err := os.ReadFile(log.Name())
	require.NoError(t, err)
	var journaled int64
	at, _ := layout.Layer(layer.Digest)
	done, _ := ParseJournal(content, layout)
	for _, i := range done[layer.Digest] {
		journaled += i.To - i.From
		there := make([]byte, i.To-i.From)
		_, err := f.ReadAt(there, at.Offset+i.From)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(src.Blobs[layer.Digest][i.From:i.To], there))
	}
	assert.Equal(t, n.Downloaded, journaled)
}

// unreadable is a file of which the disk cannot read a part back, until it is written again.
type unreadable struct {
	File
	mu   sync.Mutex
	at   int64
	heal bool
}

func (u *unreadable) ReadAt(p []byte, off int64) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if off <= u.at && u.at < off+int64(len(p)) {
		return 0, errors.New("input/output error")
	}
	return u.File.ReadAt(p, off)
}

func (u *unreadable) WriteAt(p []byte, off int64) (int, error) {
	u.mu.Lock()
	if u.heal && off <= u.at && u.at < off+int64(len(p)) {
		u.at = -1
	}
	u.mu.Unlock()
	return u.File.WriteAt(p, off)
}

// What an earlier attempt left and cannot be read is fetched; what was written now and
// cannot be is an error of the file.
func TestFetchOfWhatCannotBeReadBack(t *testing.T) {
	src := cachetest.Blobs{}
	layer := src.Add(cachetest.Noise(1, 20_000))
	layout := mustLayout(t, testImage(t, layer))
	at, _ := layout.Layer(layer.Digest)
	for _, heal := range []bool{true, false} {
		f := tempFile(t)
		_, err := f.WriteAt(src[layer.Digest][:10_000], at.Offset)
		require.NoError(t, err)
		n, err := testFetcher(4).Fetch(t.Context(), Job{
			Sink: &unreadable{File: File{f}, at: at.Offset + 5000, heal: heal}, Layout: layout, Source: src,
			Have: map[v1.Hash][]sys.Interval{layer.Digest: {{From: 0, To: 10_000}}},
		})
		if !heal {
			require.ErrorContains(t, err, "input/output error")
			assert.True(t, sys.IsWrite(err))
			continue
		}
		require.NoError(t, err)
		assert.GreaterOrEqual(t, n.Downloaded, layer.Size)
		requireFetched(t, f, layout, src)
	}
}
