package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/fetch"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// Environment of the child that TestMain turns this test binary into.
const (
	killDirVar  = "DOCKERCACHE_TEST_KILL_DIR"
	killFileVar = "DOCKERCACHE_TEST_KILL_FILE"
	killStepVar = "DOCKERCACHE_TEST_KILL_STEP"
	stopDirVar  = "DOCKERCACHE_TEST_STOP_DIR"
	slowDirVar  = "DOCKERCACHE_TEST_SLOW_DIR"
)

func TestMain(m *testing.M) {
	if user := os.Getenv(userVar); user != "" {
		if err := become(user); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	if dir := os.Getenv(stockDirVar); dir != "" {
		fmt.Println(stockOnce(dir))
		os.Exit(0)
	}
	if dir, name := os.Getenv(quotaDirVar), os.Getenv(killStepVar); dir != "" {
		if err := putQuota(dir, name, name[0], func() {}); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("stocked")
		}
		os.Exit(0)
	}
	if dir := os.Getenv(killDirVar); dir != "" {
		fmt.Println("error:", victim(dir, os.Getenv(killStepVar)))
		os.Exit(1) // it should have been killed
	}
	if path := os.Getenv(killFileVar); path != "" {
		fmt.Println("error:", fileVictim(path, os.Getenv(killStepVar)))
		os.Exit(1)
	}
	if dir := os.Getenv(stopDirVar); dir != "" {
		fmt.Println(suspended(dir, os.Getenv(killStepVar)))
		os.Exit(0)
	}
	if dir := os.Getenv(slowDirVar); dir != "" {
		if err := ownSlowly(dir); err != nil {
			fmt.Println("error:", err)
		}
		os.Exit(0)
	}
	// The examples are not about the credentials of the user that runs them.
	_ = os.Setenv("DOCKER_CONFIG", os.DevNull+"/none")
	os.Exit(m.Run())
}

// killImages are the two images that the child stocks in turn.
func killImages(t testing.TB) (cachetest.Blobs, []*tarball.Image) {
	src := cachetest.Blobs{}
	shared := src.Add(cachetest.Noise(3, 300_000))
	return src, []*tarball.Image{
		testImage(t, shared, src.Add(cachetest.Noise(4, 700_000))),
		testImage(t, shared, src.Add(cachetest.Noise(5, 600_000))),
	}
}

// victim stocks the two images in turn for ever, and prints each step. With a
// step it kills itself at it, the way a crash would: no deferred call runs.
func victim(path, step string) error {
	t := &testing.T{}
	src, images := killImages(t)
	dir, err := Open(path, nil)
	if err != nil {
		return err
	}
	dir.fetcher = killFetcher()
	dieAt(step)
	chatty := chattySource(src)
	for i := 0; i == 0 || step != "once"; i++ {
		if _, err := dir.Put(context.Background(), "name_main.tar", images[i%2], chatty, nil); err != nil {
			return err
		}
	}
	select {} // done; killed all the same
}

// fileVictim is [victim] for the first image and WriteTarball.
func fileVictim(path, step string) error {
	src, images := killImages(&testing.T{})
	dieAt(step)
	return WriteTarball(context.Background(), path, images[0], chattySource(src), nil)
}

func dieAt(step string) {
	sys.AtStep = func(at string) {
		fmt.Println(at)
		if "stop at "+at == step {
			fmt.Println("stopped")
			select {} // the heartbeats go on
		}
		if at == step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
}

func chattySource(src tarball.Source) tarball.Source {
	return cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
		r, err := src.ReadRange(ctx, d, off, n)
		return &stepping{r}, err
	})
}

// stepping makes each read of a layer a step.
type stepping struct{ io.ReadCloser }

func (s *stepping) Read(p []byte) (int, error) {
	sys.AtStep("read")
	return s.ReadCloser.Read(p[:min(len(p), 32<<10)])
}

func startVictim(t *testing.T, dir, step string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	return startChild(t, killDirVar+"="+dir, killStepVar+"="+step)
}

func startChild(t *testing.T, env ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return cmd, bufio.NewScanner(out)
}

func requireKilled(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal())
}

// requireAbsentOrWhole is the invariant: whatever has no leading dot is a
// complete tarball of one of the images.
func requireAbsentOrWhole(t *testing.T, dir string, images []*tarball.Image) (found string) {
	t.Helper()
	for _, name := range names(t, dir) {
		if strings.HasPrefix(name, ".") {
			continue
		}
		require.Equal(t, "name_main.tar", name)
		info := requireWhole(t, filepath.Join(dir, name))
		found = info.Image.Digest().String()
		require.Contains(t, []string{images[0].Digest().String(), images[1].Digest().String()}, found)
	}
	return found
}

// At each step there is exactly one thing that may be under the final name.
func TestKilledAtEachStep(t *testing.T) {
	src, images := killImages(t)
	first, second := images[0].Digest().String(), images[1].Digest().String()
	for _, variant := range []struct {
		old     string
		network bool
	}{{"", false}, {second, false}, {second, true}} {
		old, network := variant.old, variant.network
		for _, c := range []struct{ step, want string }{
			{"lock", old},
			{"own", old},
			{"create", old},
			{"write", old},
			{"read", old},
			{"sync", old},
			{"close", old},
			{"rename", old},
			{"sync directory", first},
			{"done", first},
			{"unlock", first},
		} {
			if network && c.step == "lock" {
				continue // it says nothing yet: that may be another host's
			}
			t.Run(fmt.Sprintf("%s with old %.10s network %v", c.step, old, network), func(t *testing.T) {
				path := t.TempDir()
				dir, err := Open(path, nil)
				require.NoError(t, err)
				if old != "" {
					_, err = dir.Put(t.Context(), "name_main.tar", images[1], src, nil)
					require.NoError(t, err)
				}
				cmd, lines := startVictim(t, path, c.step)
				for lines.Scan() {
					require.NotContains(t, lines.Text(), "error")
				}
				requireKilled(t, cmd)
				assert.Equal(t, c.want, requireAbsentOrWhole(t, path, images))

				// The next run is not hindered by what the dead one left, and does not
				// wait for it: not where the kernel knows that it is dead, and not on a
				// network file system either, if the lock says that it was this host's.
				require.FileExists(t, filepath.Join(path, lockName))
				dir.network = network
				dir.sleep = func(context.Context, time.Duration) error { return errors.New("it waits") }
				_, err = dir.Put(t.Context(), "name_main.tar", images[0], src, nil)
				require.NoError(t, err)
				assert.Equal(t, first, requireAbsentOrWhole(t, path, images))
				// Where there was nothing to do the lock goes by age.
				dir.now = func() time.Time { return time.Now().Add(DefaultSweepAge + time.Hour) }
				_, err = dir.Sweep(t.Context(), nil)
				require.NoError(t, err)
				assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, path)))
			})
		}
	}
}

// Two hundred times: killed anywhere in the making of one tarball, and run again.
// Each time the tarball is right, nothing else is left, and what the dead one had
// read is not read again, but for what it had not yet journaled.
func TestKilledAndRunAgain(t *testing.T) {
	src, images := killImages(t)
	rnd := rand.New(rand.NewPCG(5, 6))
	total := images[0].Layers()[0].Size + images[0].Layers()[1].Size
	resumed := 0
	for attempt := range 200 {
		path := t.TempDir()
		cmd, lines := startVictim(t, path, "once")
		reads := int64(0)
		for range rnd.IntN(50) {
			if !lines.Scan() {
				break
			}
			require.NotContains(t, lines.Text(), "error")
			if lines.Text() == "read" {
				reads++
			}
		}
		require.NoError(t, cmd.Process.Kill())
		for lines.Scan() { // lets Wait close the pipe
		}
		_ = cmd.Wait() // killed, or done before that
		requireAbsentOrWhole(t, path, images)

		dir, err := Open(path, nil)
		require.NoError(t, err)
		dir.fetcher = killFetcher()
		result, err := dir.Put(t.Context(), "name_main.tar", images[0], src, nil)
		require.NoError(t, err)
		require.Equal(t, images[0].Digest().String(), requireAbsentOrWhole(t, path, images))
		if result.Outcome == Unchanged { // it died after its work: the lock goes by age
			_, err = dir.Sweep(t.Context(), &SweepOptions{Age: 1})
			require.NoError(t, err)
		}
		require.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, path)), "attempt %d", attempt)
		if result.Outcome == Stocked {
			require.LessOrEqual(t, result.Downloaded, total)
			if result.Downloaded < total {
				resumed++
			}
		}
	}
	assert.Greater(t, resumed, 50, "many attempts found something to resume")
}

// killFetcher cuts the small layers of these tests into ranges, so that journals
// say something.
func killFetcher() *fetch.Fetcher {
	f := fetch.New(3)
	f.SetSizes(50_000, 50_000, 10_000)
	return f
}

// Killed from outside, at no step in particular: the signal arrives anywhere,
// in the middle of a write, a flush or a rename.
func TestKilledAtAnyMoment(t *testing.T) {
	src, images := killImages(t)
	path := t.TempDir()
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 40 {
		cmd, lines := startVictim(t, path, "")
		for range 1 + rnd.IntN(150) {
			require.True(t, lines.Scan(), "the child ended by itself")
			require.NotContains(t, lines.Text(), "error")
		}
		require.NoError(t, cmd.Process.Kill())
		for lines.Scan() { // lets Wait close the pipe
		}
		requireKilled(t, cmd)
		requireAbsentOrWhole(t, path, images)
	}
	dir, err := Open(path, nil)
	require.NoError(t, err)
	_, err = dir.Put(t.Context(), "name_main.tar", images[0], src, nil)
	require.NoError(t, err)
	require.Equal(t, images[0].Digest().String(), requireAbsentOrWhole(t, path, images))
}
