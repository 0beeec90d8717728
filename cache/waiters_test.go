package cache

import (
	"context"
	"io"
	"os"
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
	"github.com/dockercache/dockercache/internal/wait"
)

// A valve is a source that gives so many bytes a second to each range.
type valve struct {
	counting
	rate atomic.Int64 // 0: all at once; in steps of a second
}

func (v *valve) ReadRange(ctx context.Context, d v1.Hash, offset, n int64) (io.ReadCloser, error) {
	r, err := v.counting.ReadRange(ctx, d, offset, n)
	return &valveReader{r, v, ctx}, err
}

type valveReader struct {
	io.ReadCloser
	valve *valve
	ctx   context.Context
}

func (r *valveReader) Read(p []byte) (int, error) {
	rate := r.valve.rate.Load()
	if rate == 0 {
		return r.ReadCloser.Read(p)
	}
	if err := wait.Sleep(r.ctx, time.Second); err != nil {
		return 0, err
	}
	return r.ReadCloser.Read(p[:min(rate, int64(len(p)))])
}

func valveOf(blobs cachetest.Blobs, rate int64) *valve {
	v := &valve{counting: counting{Blobs: blobs}}
	v.rate.Store(rate)
	return v
}

func (v *valve) askedFor(layer v1.Descriptor) int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.asked[layer.Digest]
}

// A stocking is a Put that runs.
type stocking struct {
	done   chan struct{}
	result *Result
	err    error
	took   time.Duration
}

func begin(t *testing.T, dir *Dir, name string, img *tarball.Image, src tarball.Source, o *PutOptions) *stocking {
	s := &stocking{done: make(chan struct{})}
	start := time.Now()
	go func() {
		defer close(s.done)
		s.result, s.err = dir.Put(t.Context(), name, img, src, o)
		s.took = time.Since(start)
	}()
	return s
}

// wait returns how long a Put took that must succeed.
func (s *stocking) wait(t *testing.T, want Outcome) time.Duration {
	t.Helper()
	<-s.done
	require.NoError(t, s.err)
	assert.Equal(t, want, s.result.Outcome)
	return s.took
}

func reopen(t *testing.T, path string) *Dir {
	t.Helper()
	dir, err := Open(path, nil)
	require.NoError(t, err)
	return dir
}

// takesOver is how long a writer waits at most for an owner to which a drip comes.
func takesOver(network bool) time.Duration {
	limit := silentAfter
	if network {
		limit = deadAfter
	}
	return limit + dripAfter + 2*heartbeatEvery
}

// A writer to which next to nothing comes is not waited for, in the same process or in
// another one. One of those that wait does its work, the others wait for that one; and the
// first ends when the work is done, and is seen as an owner until then.
func TestPutDoesNotWaitForADrip(t *testing.T) {
	for _, network := range []bool{false, true} {
		for _, processes := range []bool{false, true} {
			path := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				blobs := cachetest.Blobs{}
				layer := blobs.Add(cachetest.Noise(1, 3<<20))
				img := testImage(t, layer)
				dir := reopen(t, path)
				open := func() *Dir {
					if processes {
						other := reopen(t, path)
						other.network = network
						return other
					}
					return dir
				}
				dir.network = network
				drip, healthy := valveOf(blobs, 1), valveOf(blobs, 0)
				first := begin(t, dir, "name_main.tar", img, drip, nil)
				time.Sleep(time.Hour)
				begun := make(chan struct{})
				slowly := cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, offset, n int64) (io.ReadCloser, error) {
					select {
					case <-begun:
					default:
						close(begun)
					}
					if err := wait.Sleep(ctx, time.Minute); err != nil {
						return nil, err
					}
					return healthy.ReadRange(ctx, d, offset, n)
				})
				var others []*stocking
				for range 4 {
					others = append(others, begin(t, open(), "name_main.tar", img, slowly, nil))
				}
				<-begun
				other := open()
				lock, err := other.tryLock(t.Context(), "name_main.tar")
				require.NoError(t, err)
				require.Nil(t, lock)
				require.True(t, other.isBeingWritten("name_main.tar"))
				gone, err := other.Sweep(t.Context(), nil)
				require.NoError(t, err)
				require.Empty(t, gone)
				outcomes := map[Outcome]int{}
				for _, s := range others {
					<-s.done
					require.NoError(t, s.err)
					outcomes[s.result.Outcome]++
					assert.LessOrEqual(t, s.took, takesOver(network)+time.Minute+4*lookEvery)
				}
				assert.Equal(t, map[Outcome]int{Stocked: 1, Unchanged: 3}, outcomes)
				assert.Equal(t, layer.Size, healthy.askedFor(layer), "one of them")
				first.wait(t, Unchanged)
				requireStocked(t, dir, "name_main.tar")
				assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, path)))
			})
		}
	}
}

// What a writer does that is not the source's fault may take its time.
func TestPutWaitsForWork(t *testing.T) {
	const long = 20 * time.Minute
	for name, work := range map[string]func(t *testing.T, src *valve) tarball.Source{
		"a flush": func(t *testing.T, src *valve) tarball.Source {
			real := sys.Flush
			t.Cleanup(func() { sys.Flush = real })
			sys.Flush = func(f *os.File) error {
				time.Sleep(long)
				return real(f)
			}
			return src
		},
		"a refused request": func(t *testing.T, src *valve) tarball.Source {
			var asked atomic.Int64
			return cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, offset, n int64) (io.ReadCloser, error) {
				if asked.Add(1) < 4 {
					return nil, &later{time.Minute}
				}
				return src.ReadRange(ctx, d, offset, n)
			})
		},
		"a source that is not fast": func(t *testing.T, src *valve) tarball.Source {
			src.rate.Store(32 << 10)
			return src
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			blobs := cachetest.Blobs{}
			img := testImage(t, blobs.Add(cachetest.Noise(1, 20<<20)))
			synctest.Test(t, func(t *testing.T) {
				dir := reopen(t, path)
				first := begin(t, dir, "name_main.tar", img, work(t, valveOf(blobs, 0)), nil)
				time.Sleep(time.Second)
				second := begin(t, reopen(t, path), "name_main.tar", img, none, nil)
				first.wait(t, Stocked)
				second.wait(t, Unchanged)
			})
		})
	}
}

// later is the error of a source that is to be asked later.
type later struct{ after time.Duration }

func (e *later) Error() string             { return "too many requests" }
func (e *later) RetryAfter() time.Duration { return e.after }
