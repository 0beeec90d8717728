package filesystems

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
)

// Environment of the processes that TestMain turns this test binary into.
const (
	roleVar  = "DOCKERCACHE_TEST_ROLE" // writer, reader or thin
	dirVar   = "DOCKERCACHE_TEST_DIR"
	seedVar  = "DOCKERCACHE_TEST_SEED"
	untilVar = "DOCKERCACHE_TEST_UNTIL" // Unix time, ms
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(roleVar) {
	case "writer":
		err = write()
	case "thin":
		err = writeThin()
	case "reader":
		err = read()
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// What they store: few names, so that they meet, and images with layers in common.
const tarballs, images = 4, 5

func stressImages() (*source, []*tarball.Image, error) {
	src := newSource()
	var all []*tarball.Image
	for i := range images {
		image, err := src.image("example.com/a:1", layer{"shared", 2 * mib}, layer{fmt.Sprint("half", i%2), mib}, layer{fmt.Sprint("own", i), 300_000})
		if err != nil {
			return nil, nil, err
		}
		all = append(all, image)
	}
	return src, all, nil
}

func tarballName(i int) string { return fmt.Sprintf("image-%d_main.tar", i) }

// fromEnvironment returns what a process is to do.
func fromEnvironment() (path string, random *rand.Rand, until time.Time) {
	seed, _ := strconv.ParseUint(os.Getenv(seedVar), 10, 64)
	ms, _ := strconv.ParseInt(os.Getenv(untilVar), 10, 64)
	return os.Getenv(dirVar), rand.New(rand.NewPCG(seed, 0)), time.UnixMilli(ms)
}

// write stores images under names, at random, until the time is over.
func write() error {
	path, random, until := fromEnvironment()
	src, all, err := stressImages()
	if err != nil {
		return err
	}
	dir, err := cache.Open(path, &cache.Options{Grace: time.Hour}) // as on a network file system
	if err != nil {
		return err
	}
	for time.Now().Before(until) {
		ctx, cancel := context.WithDeadline(context.Background(), until)
		_, err := dir.Put(ctx, tarballName(random.IntN(tarballs)), all[random.IntN(images)], src, nil)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return nil
}

// read verifies what is there, again and again.
func read() error {
	path, random, until := fromEnvironment()
	verified := 0
	for time.Now().Before(until) {
		stocked, err := tarball.Open(filepath.Join(path, tarballName(random.IntN(tarballs))))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err // torn
		}
		err = stocked.Verify(context.Background(), nil) // also when it was replaced meanwhile
		_ = stocked.Close()
		if err != nil {
			return err
		}
		verified++
	}
	if verified == 0 {
		return errors.New("nothing was there to be verified")
	}
	return nil
}

// Sixteen processes store the same and different names for a while, some of them
// are killed in the middle, and eight verify what they open: no wrong byte, no
// torn file, no deadlock, and nothing is left behind in the end.
func TestManyProcesses(t *testing.T) {
	length := time.Minute
	if testing.Short() {
		length = 5 * time.Second
	}
	path := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	until := time.Now().Add(length)
	start := func(role string, seed int) *exec.Cmd {
		// The end of the time is the end of all waits, too.
		ctx, cancel := context.WithDeadline(t.Context(), until.Add(time.Minute))
		t.Cleanup(cancel)
		cmd := exec.CommandContext(ctx, self)
		cmd.Env = append(os.Environ(), roleVar+"="+role, dirVar+"="+path, seedVar+"="+strconv.Itoa(seed), untilVar+"="+strconv.FormatInt(until.UnixMilli(), 10))
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		require.NoError(t, cmd.Start())
		return cmd
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	killed := 0
	for i := range 16 {
		cmd := start("writer", i)
		group.Go(func() {
			for seed := i + 100; ; seed += 100 {
				err := cmd.Wait()
				if err == nil {
					return
				}
				mu.Lock()
				if i >= 4 || cmd.ProcessState.Exited() { // not by us
					assert.NoError(t, err, "writer %d", i)
					mu.Unlock()
					return
				}
				killed++
				cmd = start("writer", seed)
				mu.Unlock()
			}
		})
		if i < 4 { // one of those that are killed, again and again
			group.Go(func() {
				random := rand.New(rand.NewPCG(uint64(i), 1))
				for {
					wait := time.Duration(random.IntN(int(length / 10)))
					if time.Now().Add(wait).After(until.Add(-time.Second)) {
						return
					}
					time.Sleep(wait)
					mu.Lock()
					_ = cmd.Process.Kill()
					mu.Unlock()
				}
			})
		}
	}
	for i := range 8 {
		cmd := start("reader", i)
		group.Go(func() { assert.NoError(t, cmd.Wait(), "reader %d", i) })
	}
	group.Wait()
	assert.Positive(t, killed)

	// One more writer of each finds everything in order, and clears up.
	src, all, err := stressImages()
	require.NoError(t, err)
	dir, err := cache.Open(path, &cache.Options{Grace: -1})
	require.NoError(t, err)
	var want []string
	for i := range tarballs {
		want = append(want, tarballName(i))
		for _, image := range all[:2] { // at least one is written, from what was left
			result, err := dir.Put(t.Context(), tarballName(i), image, src, nil)
			require.NoError(t, err)
			require.Empty(t, result.Damaged)
		}
		requireIntact(t, dir, tarballName(i))
	}
	// What the killed have left is nobody's, and goes at once if that is asked for.
	for _, name := range names(t, path) {
		if filepath.Ext(name) != ".partial" && filepath.Ext(name) != ".journal" {
			assert.Contains(t, want, name)
		}
	}
	_, err = dir.Sweep(t.Context(), &cache.SweepOptions{Age: 1})
	require.NoError(t, err)
	assert.Equal(t, want, names(t, path))
}
