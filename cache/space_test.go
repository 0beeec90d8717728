package cache

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// What does not fit is reported before a byte is asked for, and leaves nothing.
func TestQuota(t *testing.T) {
	src := cachetest.Blobs{}
	base := src.Add(cachetest.Noise(1, 1<<20))
	path := t.TempDir()
	dir, err := Open(path, &Options{Quota: 3 << 19})
	require.NoError(t, err)
	_, err = dir.Put(t.Context(), "a_main.tar", testImage(t, base), src, nil)
	require.NoError(t, err)
	second := testImage(t, src.Add(cachetest.Noise(2, 1<<20)))
	_, err = dir.Put(t.Context(), "b_main.tar", second, none, nil)
	require.ErrorIs(t, err, ErrQuota)
	var space *SpaceError
	require.ErrorAs(t, err, &space)
	layout, err := tarball.NewLayout(second, tarball.Provenance{})
	require.NoError(t, err)
	assert.Equal(t, layout.Size(), space.Need)
	assert.Less(t, space.Have, int64(1<<19))
	assert.Equal(t, []string{"a_main.tar"}, names(t, path))
	// What it would share with the first counts too.
	_, err = dir.Put(t.Context(), "b_main.tar", testImage(t, base), none, nil)
	require.ErrorIs(t, err, ErrQuota)
	assert.Equal(t, []string{"a_main.tar"}, names(t, path))
}

// What another process is writing counts as large as it will be, at each moment: before
// the first byte, in the middle, where space is reserved and where it is not. What a dead
// one has left counts as it is.
func TestQuotaCountsWhatIsUnderWay(t *testing.T) {
	for name, path := range map[string]string{"here": t.TempDir(), "tmpfs": mountTmpfs(t, "size=64m")} {
		t.Run(name, func(t *testing.T) {
			src := cachetest.Blobs{}
			images := []*tarball.Image{testImage(t, src.Add(cachetest.Noise(1, 4<<20))), testImage(t, src.Add(cachetest.Noise(2, 4<<20)))}
			open := func() *Dir {
				dir, err := Open(path, &Options{Quota: 6 << 20})
				require.NoError(t, err)
				return dir
			}
			for _, left := range []int64{0, 1 << 20, 3 << 20} {
				reached, release := make(chan struct{}), make(chan struct{})
				stop := sync.OnceFunc(func() { close(reached) })
				var given atomic.Int64
				slow := cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, offset, n int64) (io.ReadCloser, error) {
					r, err := src.ReadRange(ctx, d, offset, n)
					return &pausing{ReadCloser: r, given: &given, most: left, stop: stop, on: release}, err
				})
				first := make(chan error)
				go func() {
					_, err := open().Put(t.Context(), "a_main.tar", images[0], slow, nil)
					first <- err
				}()
				<-reached
				_, err := open().Put(t.Context(), "b_main.tar", images[1], none, nil)
				assert.ErrorIs(t, err, ErrQuota, "%d", left)
				close(release)
				require.NoError(t, <-first)
				require.NoError(t, os.Remove(filepath.Join(path, "a_main.tar")))
			}

			// A partial file that is planned, and of which nothing is there.
			f, err := sys.CreateTemp(path, "a_main.tar.0123456789ab", partialKind, 0o666)
			require.NoError(t, err)
			require.NoError(t, f.Truncate(4<<20))
			_, err = open().Put(t.Context(), "b_main.tar", images[1], src, nil)
			require.ErrorIs(t, err, ErrQuota)
			require.NoError(t, f.Close())
			_, err = open().Put(t.Context(), "b_main.tar", images[1], src, nil)
			require.NoError(t, err, "its writer is dead")
		})
	}
}

// pausing gives some bytes, all readers together, and then none until on is closed.
type pausing struct {
	io.ReadCloser
	given *atomic.Int64
	most  int64
	stop  func()
	on    chan struct{}
}

func (s *pausing) Read(p []byte) (int, error) {
	if s.given.Load() >= s.most {
		s.stop()
		<-s.on
	}
	n, err := s.ReadCloser.Read(p[:min(len(p), 64<<10)])
	s.given.Add(int64(n))
	return n, err
}

// Two that begin at the same time do not both fit, and not neither: the second does not
// count before the first was counted.
func TestQuotaOfTwoThatBeginAtOnce(t *testing.T) {
	path := t.TempDir()
	counted, blocked := make(chan struct{}), make(chan struct{})
	block := sync.OnceFunc(func() { close(blocked) })
	second := make(chan error, 1)
	var arrived atomic.Int64
	defer func(was func(string)) { sys.AtStep = was }(sys.AtStep)
	sys.AtStep = func(step string) {
		if step != "quota" {
			return
		}
		if arrived.Add(1) > 1 { // too early, or when the first is done
			block()
			<-counted
			return
		}
		go func() { second <- putQuota(path, "b_main.tar", 2, block) }()
		<-blocked
	}
	require.NoError(t, putQuota(path, "a_main.tar", 1, func() {}))
	close(counted)
	require.ErrorIs(t, <-second, ErrQuota)
	assert.Equal(t, []string{"a_main.tar"}, names(t, path))
}

const testQuota = 6 << 20

// putQuota stocks a tarball of which two do not fit.
func putQuota(path, name string, seed byte, waits func()) error {
	dir, err := Open(path, &Options{Quota: testQuota})
	if err != nil {
		return err
	}
	dir.sleep = func(ctx context.Context, d time.Duration) error {
		if d == lookEvery {
			waits()
		}
		return wait.Sleep(ctx, d/100)
	}
	src := cachetest.Blobs{}
	img := testImage(&testing.T{}, src.Add(cachetest.Noise(seed, 4<<20)))
	_, err = dir.Put(context.Background(), name, img, src, nil)
	return err
}

// quotaDirVar makes TestMain call putQuota.
const quotaDirVar = "DOCKERCACHE_TEST_QUOTA_DIR"

// Two processes, of which one fits, many times.
func TestQuotaOfProcesses(t *testing.T) {
	path := mountTmpfs(t, "size=64m") // no space can be reserved here
	for round := range 10 {
		var children []*exec.Cmd
		var outputs []*bufio.Scanner
		for _, name := range []string{"a_main.tar", "b_main.tar"} {
			cmd, lines := startChild(t, quotaDirVar+"="+path, killStepVar+"="+name)
			children, outputs = append(children, cmd), append(outputs, lines)
		}
		stocked := 0
		for i, cmd := range children {
			require.True(t, outputs[i].Scan())
			if outputs[i].Text() == "stocked" {
				stocked++
			} else {
				assert.Contains(t, outputs[i].Text(), ErrQuota.Error())
			}
			require.NoError(t, cmd.Wait())
		}
		assert.Equal(t, 1, stocked, "round %d", round)
		left := names(t, path)
		require.Len(t, left, 1)
		require.NoError(t, os.Remove(filepath.Join(path, left[0])))
	}
}
