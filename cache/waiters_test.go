package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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
	dir, err := Open(path, &Options{MinRangeRate: -1}) // what drips is not ended
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
					assert.LessOrEqual(t, s.took, takesOver(network)+2*time.Minute+4*lookEvery)
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
	for name, work := range map[string]func(t *testing.T, src *valve) tarball.Source{
		"a flush": func(t *testing.T, src *valve) tarball.Source {
			slowFlush(t, 20*time.Minute)
			return src
		},
		"a flush after a drip": func(t *testing.T, src *valve) tarball.Source {
			slowFlush(t, 20*time.Minute)
			src.rate.Store(1)
			time.AfterFunc(2*dripAfter, func() { src.rate.Store(0) })
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
				assert.Zero(t, second.result.Resumed, "it did nothing")
			})
		})
	}
}

// later is the error of a source that is to be asked later.
type later struct{ after time.Duration }

func (e *later) Error() string             { return "too many requests" }
func (e *later) RetryAfter() time.Duration { return e.after }

// An image to which next to nothing comes holds up no other that shares its layers: one of
// those that wait fetches them, with its own source, and all take them from there, the slow
// one too.
func TestLayersInFlightOfADrip(t *testing.T) {
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		blobs := cachetest.Blobs{}
		base, second := blobs.Add(cachetest.Noise(1, 3<<20)), blobs.Add(cachetest.Noise(2, 2<<20))
		third := blobs.Add(cachetest.Noise(3, 3<<20))
		var owns []v1.Descriptor
		for i := range byte(4) {
			owns = append(owns, blobs.Add(cachetest.Noise(10+i, 1000)))
		}
		slow := []v1.Descriptor{base, second}
		dir := reopen(t, path)
		drip, healthy := valveOf(blobs, 1), valveOf(blobs, 0)
		first := begin(t, dir, "slow_main.tar", testImage(t, slow...), drip, nil)
		time.Sleep(time.Second)
		var others []*stocking
		for i, own := range owns {
			others = append(others, begin(t, dir, string(rune('a'+i))+"_main.tar", testImage(t, base, second, own), healthy, nil))
		}
		time.Sleep(measureEvery)
		for _, l := range owns {
			assert.Equal(t, l.Size, healthy.askedFor(l), "what others do not bring is fetched meanwhile")
		}
		for _, s := range others {
			assert.LessOrEqual(t, s.wait(t, Stocked), dripAfter+3*measureEvery)
		}
		assert.Equal(t, base.Size, healthy.askedFor(base), "one of them")
		assert.Equal(t, second.Size, healthy.askedFor(second), "one of them")
		assert.LessOrEqual(t, first.wait(t, Stocked), dripAfter+6*measureEvery, "it has them from the others")
		assert.Less(t, first.result.Downloaded, int64(1<<20))

		// One that comes later does not wait first.
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stuck := make(chan error)
		go func() {
			_, err := dir.Put(ctx, "slow_next.tar", testImage(t, third), drip, nil)
			stuck <- err
		}()
		time.Sleep(time.Minute)
		assert.Zero(t, begin(t, dir, "late_main.tar", testImage(t, third), healthy, nil).wait(t, Stocked))
		time.Sleep(3 * measureEvery)
		require.NoError(t, <-stuck, "the directory has it by now")
		assert.Empty(t, dir.inflight.layers)
		for _, name := range names(t, path) {
			requireStocked(t, dir, name)
		}
	})
}

// The first leader that has a layer serves all, whichever it is; and no other waits for the
// source of the second.
func TestLayerInFlightOfTwoDrips(t *testing.T) {
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		blobs := cachetest.Blobs{}
		base := blobs.Add(cachetest.Noise(1, 3<<20))
		dir := reopen(t, path)
		one, other := valveOf(blobs, 1), valveOf(blobs, 1)
		var all []*stocking
		for i, src := range []tarball.Source{one, other, none, none} {
			all = append(all, begin(t, dir, string(rune('a'+i))+"_main.tar", testImage(t, base), src, nil))
			time.Sleep(dripAfter - measureEvery) // so that one is waiting when the one before becomes slow
			if i == 1 {
				time.Sleep(2 * measureEvery)
				assert.NotZero(t, other.askedFor(base), "it leads too")
				one.rate.Store(0)
			}
		}
		for _, s := range all {
			s.wait(t, Stocked)
			requireStocked(t, dir, filepath.Base(s.result.Path))
		}
		assert.Zero(t, all[0].result.Reused)
		for _, s := range all[1:] {
			assert.InDelta(t, base.Size, s.result.Reused, 1000)
		}
		assert.Empty(t, dir.inflight.layers)
	})
}

// What a slow fetch has, it does not fetch again when it takes a layer from elsewhere.
func TestSlowFetchGoesOn(t *testing.T) {
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		blobs := cachetest.Blobs{}
		base, own := blobs.Add(cachetest.Noise(1, 3<<20)), blobs.Add(cachetest.Noise(2, 3<<20))
		dir := reopen(t, path)
		drip, healthy := valveOf(blobs, 1), valveOf(blobs, 0)
		src := cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, offset, n int64) (io.ReadCloser, error) {
			if d == own.Digest {
				return healthy.ReadRange(ctx, d, offset, n)
			}
			return drip.ReadRange(ctx, d, offset, n)
		})
		first := begin(t, dir, "a_main.tar", testImage(t, base, own), src, nil)
		time.Sleep(time.Minute)
		begin(t, reopen(t, path), "b_main.tar", testImage(t, base), valveOf(blobs, 0), nil).wait(t, Stocked) // another process
		first.wait(t, Stocked)
		assert.Equal(t, own.Size, healthy.askedFor(own))
		assert.InDelta(t, base.Size, first.result.Reused, 4000)
		requireStocked(t, dir, "a_main.tar")
	})
}

// A tarball in the directory with a damaged layer is tried once, and then the source is
// believed again.
func TestSlowFetchFindsDamage(t *testing.T) {
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		blobs := cachetest.Blobs{}
		base := blobs.Add(cachetest.Noise(1, 300))
		dir, begun := reopen(t, path), time.Now()
		drip := valveOf(blobs, 1)
		first := begin(t, dir, "a_main.tar", testImage(t, base), drip, nil)
		time.Sleep(time.Second)
		elsewhere := reopen(t, t.TempDir())
		begin(t, elsewhere, "b_main.tar", testImage(t, base), valveOf(blobs, 0), nil).wait(t, Stocked)
		damaged := filepath.Join(elsewhere.Path(), "b_main.tar")
		f, err := os.OpenFile(damaged, os.O_RDWR, 0)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte("x"), infoOf(t, damaged).Layout.Layers()[0].Offset+200) // what has come until then is not copied
		require.NoError(t, errors.Join(err, f.Close(), os.Rename(damaged, filepath.Join(path, "b_main.tar"))))
		first.wait(t, Stocked)
		assert.Equal(t, 2*base.Size, drip.askedFor(base), "from its beginning, and then after the damage")
		assert.InDelta(t, 300*time.Second+dripAfter, time.Since(begun), float64(3*measureEvery))
		requireStocked(t, dir, "a_main.tar")
	})
}

// An owner that becomes fast again while another does its work harms nothing, whichever
// ends first, and of whichever run they are.
func TestSlowWriterBecomesFast(t *testing.T) {
	for name, c := range map[string]struct {
		fast   time.Duration // when the owner is again
		slow   time.Duration // how long the other takes
		owner  int64         // run
		other  int64
		stored int64
	}{
		"the owner ends first":                 {2 * time.Minute, time.Hour, 5, 5, 5},
		"the other ends first":                 {time.Hour, time.Minute, 5, 5, 5},
		"an older owner, which ends last":      {time.Hour, time.Minute, 4, 5, 5},
		"an older owner, which ends first":     {2 * time.Minute, time.Hour, 4, 5, 5},
		"a newer owner, which ends last":       {time.Hour, time.Minute, 6, 5, 6},
		"a newer owner, which ends first":      {2 * time.Minute, time.Hour, 6, 5, 6},
		"before the other begins":              {takesOver(false) - 3*heartbeatEvery, time.Hour, 6, 5, 6},
		"an older owner, before that":          {takesOver(false) - 3*heartbeatEvery, time.Second, 4, 5, 5},
		"at the same time, as far as is known": {takesOver(false), time.Second, 4, 5, 5},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				blobs := cachetest.Blobs{}
				of := map[int64]*tarball.Image{}
				for _, run := range []int64{4, 5, 6} {
					of[run] = testImage(t, blobs.Add(cachetest.Noise(byte(run), 3<<20)))
				}
				options := func(run int64) *PutOptions {
					return &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: run}}}
				}
				drip, healthy := valveOf(blobs, 1), valveOf(blobs, 0)
				owner := begin(t, reopen(t, path), "name_main.tar", of[c.owner], drip, options(c.owner))
				time.AfterFunc(c.fast, func() { drip.rate.Store(0) })
				time.Sleep(measureEvery)
				other := begin(t, reopen(t, path), "name_main.tar", of[c.other], cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, offset, n int64) (io.ReadCloser, error) {
					if err := wait.Sleep(ctx, c.slow); err != nil {
						return nil, err
					}
					return healthy.ReadRange(ctx, d, offset, n)
				}), options(c.other))
				<-owner.done
				<-other.done
				require.NoError(t, owner.err)
				require.NoError(t, other.err)
				info := requireStocked(t, reopen(t, path), "name_main.tar")
				assert.Equal(t, c.stored, info.Provenance.Run.ID)
				assert.Equal(t, of[c.stored].Digest(), info.Image.Digest())
				assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, path)))
			})
		})
	}
}

// What a slow writer has is not fetched again, and not what is wrong of it either; its file
// stays its own.
func TestPutTakesWhatASlowWriterHas(t *testing.T) {
	for _, wrong := range []bool{false, true} {
		path := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			blobs := cachetest.Blobs{}
			layer := blobs.Add(cachetest.Noise(1, 8<<20-5))
			img := testImage(t, layer)
			owned := valveOf(blobs, 2<<20)
			if wrong {
				owned.Blobs = cachetest.Blobs{layer.Digest: cachetest.Noise(2, 8<<20-5)}
			}
			first := begin(t, reopen(t, path), "name_main.tar", img, owned, nil)
			time.Sleep(2500 * time.Millisecond)
			owned.rate.Store(1)
			partials := sys.Temporaries(path, "name_main.tar."+img.Digest().Hex[:12], partialKind)
			require.Len(t, partials, 1)
			second := begin(t, reopen(t, path), "name_main.tar", img, blobs, nil)
			<-second.done
			require.FileExists(t, partials[0])
			second.wait(t, Stocked)
			if wrong {
				assert.GreaterOrEqual(t, second.result.Downloaded, layer.Size)
			} else {
				assert.GreaterOrEqual(t, second.result.Resumed, int64(2<<20))
				assert.Equal(t, layer.Size, second.result.Resumed+second.result.Downloaded)
			}
			first.wait(t, Unchanged)
			requireStocked(t, reopen(t, path), "name_main.tar")
			assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, path)))
		})
	}
}

// ownSlowly is a child that owns the lock of a tarball, and of whose work it is known that
// it goes on, until a line comes in; then next to nothing comes to it, until the next line.
func ownSlowly(path string) error {
	dir, err := Open(path, nil)
	if err != nil {
		return err
	}
	dir.heartbeat = time.Millisecond
	lock, _, err := dir.lock(context.Background(), "name_main.tar", tarball.Run{}, false)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	fmt.Println("owner")
	lines.Scan()
	lock.flow.slow.Store(true)
	fmt.Println("slow")
	lines.Scan()
	lock.unlock()
	return nil
}

// Another process is waited for while its work goes on, and not when that does not, although
// it lives.
func TestPutDoesNotWaitForASlowProcess(t *testing.T) {
	dir := openTestDir(t)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), slowDirVar+"="+dir.Path())
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	t.Cleanup(func() {
		_ = in.Close()
		for lines.Scan() {
		}
		_ = cmd.Wait()
	})
	next := func(want string) {
		require.True(t, lines.Scan())
		require.Equal(t, want, lines.Text())
	}
	next("owner")
	dir.network = true // elsewhere the time of the lock's file counts too, which the clock below does not set
	var looks atomic.Int64
	start := time.Now()
	dir.now = func() time.Time { return start.Add(time.Duration(looks.Load()) * lookEvery) }
	beats := func(of func(o owner) int64) {
		for was := of(readLock(t, dir)); of(readLock(t, dir)) == was; {
			runtime.Gosched()
		}
	}
	const healthy = 300
	dir.sleep = func(ctx context.Context, d time.Duration) error {
		if d != lookEvery {
			return wait.Sleep(ctx, d)
		}
		switch n := looks.Add(1); {
		case n < healthy:
			beats(func(o owner) int64 { return o.Progress })
		case n == healthy:
			_, err := fmt.Fprintln(in)
			assert.NoError(t, err)
			next("slow")
		default:
			beats(func(o owner) int64 { return o.Beat })
		}
		return nil
	}
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 1000)))
	result, err := dir.Put(t.Context(), "name_main.tar", img, src, nil)
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome)
	assert.InDelta(t, healthy+int(deadAfter/lookEvery), looks.Load(), 3)
	for _, other := range []*Dir{dir, reopen(t, dir.Path())} {
		lock, err := other.tryLock(t.Context(), "name_main.tar")
		require.NoError(t, err)
		assert.Nil(t, lock, "it is the owner's")
		assert.True(t, other.isBeingWritten("name_main.tar"))
		require.ErrorIs(t, other.Remove(t.Context(), "name_main.tar"), ErrInUse)
	}
	_, err = fmt.Fprintln(in)
	require.NoError(t, err)
	require.False(t, lines.Scan())
	require.NoError(t, dir.Remove(t.Context(), "name_main.tar"))
	assert.Empty(t, names(t, dir.Path()))
}

// The second lock is as the first one: who works under it is seen, a dead one's is removed,
// and a newer run takes it over.
func TestNextLock(t *testing.T) {
	path := t.TempDir()
	dir := reopen(t, path)
	next := lockName + nextKind
	require.NoError(t, os.WriteFile(filepath.Join(path, next), owner{ID: "dead", Host: "any", PID: 1}.record(), 0o600))
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		first, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{ID: 5}, false)
		require.NoError(t, err)
		assert.Zero(t, time.Since(start), "a dead one's")
		first.unlock()
		assert.Empty(t, names(t, path))

		first, _, err = dir.lock(t.Context(), "name_main.tar", tarball.Run{ID: 5}, false)
		require.NoError(t, err)
		first.flow.slow.Store(true)
		second, ctx, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{ID: 5}, false)
		require.NoError(t, err)
		assert.InDelta(t, silentAfter, time.Since(start), float64(2*heartbeatEvery))
		assert.Equal(t, []string{lockName, next}, names(t, path))
		first.unlock()
		assert.True(t, dir.isBeingWritten("name_main.tar"), "the second is at work")
		try, err := dir.tryLock(t.Context(), "name_main.tar")
		require.NoError(t, err)
		assert.Nil(t, try)

		got := make(chan *writerLock)
		go func() {
			third, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{ID: 6}, true)
			assert.NoError(t, err)
			got <- third
		}()
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), ErrPreempted)
		second.unlock()
		(<-got).unlock()
		assert.Empty(t, names(t, path))
	})
}

// With the owners of both locks slow, each does the work.
func TestNextLockIsSlowToo(t *testing.T) {
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		dir := reopen(t, path)
		start := time.Now()
		for i := range 4 {
			l, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
			require.NoError(t, err)
			defer l.unlock()
			l.flow.slow.Store(true)
			assert.InDelta(t, []time.Duration{0, 1, 3, 5}[i]*silentAfter, time.Since(start), float64(4*heartbeatEvery))
		}
	})
}

// An owner of a version before shows no progress: it is waited for as long as it lives.
func TestLockOfAVersionWithoutProgress(t *testing.T) {
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		dir := reopen(t, path)
		old := owner{ID: "old", Host: "any", PID: 1}
		writeOwner(t, dir, old)
		holder, err := os.Open(filepath.Join(path, lockName))
		require.NoError(t, err)
		require.False(t, isLocked(holder))
		go func() {
			for old.Beat < 1000 {
				time.Sleep(heartbeatEvery)
				old.Beat++
				writeOwner(t, dir, old)
			}
			assert.NoError(t, holder.Close())
		}()
		start := time.Now()
		l, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
		require.NoError(t, err)
		assert.NotNil(t, l.file)
		assert.InDelta(t, 1000*heartbeatEvery, time.Since(start), float64(2*heartbeatEvery))
		l.unlock()
	})
}
