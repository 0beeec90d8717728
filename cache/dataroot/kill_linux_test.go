package dataroot_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/testtool"
)

// Environment of the child that TestMain turns this test binary into: what it does, in which
// directory, and at which step it is killed.
const (
	killDoVar   = "DOCKERCACHE_TEST_KILL_DO"
	killDirVar  = "DOCKERCACHE_TEST_KILL_DIR"
	killAtVar   = "DOCKERCACHE_TEST_KILL_AT"
	killStepVar = "DOCKERCACHE_TEST_KILL_STEP"
)

func TestMain(m *testing.M) {
	if do := os.Getenv(killDoVar); do != "" {
		sys.AtStep = func(step string) {
			if step == os.Getenv(killStepVar) {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
		if err := victim(do, os.Getenv(killDirVar), os.Getenv(killAtVar)); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// victim builds, clones or discards.
func victim(do, path, at string) error {
	ctx := context.Background()
	if do == "discard" {
		return dataroot.Discard(ctx, at)
	}
	root, err := dataroot.Open(path, &dataroot.Options{Size: 1 << 30})
	if err != nil {
		return err
	}
	if do == "clone" {
		all, err := root.List()
		if err == nil {
			_, err = root.Clone(ctx, all[0].Name, at, nil)
		}
		return err
	}
	dir, err := cache.Open(path, nil)
	if err != nil {
		return err
	}
	t, err := dir.Get(ctx, "one_main.tar")
	if err != nil {
		return err
	}
	_, err = root.Build(ctx, "one_main", dataroot.Engine{Kind: dataroot.Containerd}, []*tarball.Tarball{t}, nil)
	return err
}

// killed does something in a process that is killed at a step.
func (w *world) killed(do, at, step string) {
	w.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killDoVar+"="+do, killDirVar+"="+w.root.Path(), killAtVar+"="+at, killStepVar+"="+step)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(w.t, err, &exit, "%s at %s was not killed: %s", do, step, out)
	require.Equal(w.t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal(), "%s at %s: %s", do, step, out)
}

// loops returns how many loop devices have a file of a file system. The kernel takes them away
// a moment after the last process of a mount namespace has ended.
func loops(t *testing.T, at string, most int) int {
	t.Helper()
	var info unix.Stat_t
	require.NoError(t, unix.Stat(at, &info))
	n := 0
	for range 100 {
		n = 0
		devices, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
		require.NoError(t, err)
		for _, path := range devices {
			device := "/dev/" + strings.Split(path, "/")[3]
			f, err := os.Open(device)
			if err != nil {
				continue
			}
			status, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
			_ = f.Close()
			if err == nil && status.Device == info.Dev {
				n++
			}
		}
		if n <= most {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return n
}

// A build that is killed at any step leaves a template that is whole, or none; nothing that is
// mounted, no engine; and what the next one goes on from.
func TestBuildIsKilled(t *testing.T) {
	testtool.Need(t, "containerd")
	w := newWorld(t, "xfs")
	temporary, err := os.MkdirTemp("", "dcr") // a socket's path is short
	require.NoError(t, err)
	defer os.RemoveAll(temporary)
	t.Setenv("TMPDIR", temporary)
	ctx := context.Background()
	engine := dataroot.Engine{Kind: dataroot.Containerd}
	steps := []string{"create", "mount", "start", "load", "stop", "finish", "check", "sync", "close", "rename"}
	for round, layers := range [][]string{{"a", "b"}, {"a", "b", "c"}} {
		one := w.stock("one_main.tar", "registry.example/one:main", layers...)
		if round == 1 { // the rest does not differ
			steps = []string{"create", "load", "rename"}
		}
		for _, step := range steps {
			w.killed("build", "", step)
			assert.Zero(t, loops(t, w.root.Path(), 0), "%s", step)
			all, err := w.root.List()
			require.NoError(t, err)
			require.Len(t, all, round, step)
			for _, template := range all {
				require.NoError(t, template.Err)
			}
		}
		w.killed("build", "", "done")
		r, err := w.root.Build(ctx, "one_main", engine, []*tarball.Tarball{one}, nil)
		require.NoError(t, err)
		assert.Equal(t, dataroot.Unchanged, r.Outcome)
		require.NoError(t, w.root.Verify(ctx, r.Template.Name, engine, one))
	}

	// What was left goes when it is old enough.
	left, err := filepath.Glob(filepath.Join(w.root.Path(), ".*.dataroot.*.tmp"))
	require.NoError(t, err)
	require.NotEmpty(t, left)
	// A killed build leaves its lock too, which the next one removes.
	locks, err := filepath.Glob(filepath.Join(w.root.Path(), ".*.dataroot.lock"))
	require.NoError(t, err)
	assert.Empty(t, locks)
	long := time.Now().Add(-2 * time.Hour)
	for _, path := range left {
		require.NoError(t, os.Chtimes(path, long, long))
	}
	w.root.Sweep()
	left, err = filepath.Glob(filepath.Join(w.root.Path(), ".*.dataroot.*.tmp"))
	require.NoError(t, err)
	assert.Empty(t, left)
	private, err := filepath.Glob(filepath.Join(os.TempDir(), "dcroot-*"))
	require.NoError(t, err)
	assert.Empty(t, private)
}

// A clone that is killed is mounted and known, or leaves nothing; a discard that is killed can
// be repeated.
func TestCloneIsKilled(t *testing.T) {
	w := newWorld(t, "xfs")
	ctx := context.Background()
	w.built(t)
	left := free(t, w.at)
	at := mountPoint(t)
	for _, step := range []string{"copy", "mount"} {
		w.killed("clone", at, step)
		assert.Zero(t, loops(t, w.root.Path(), 0), step)
		requireNoClones(t)
	}
	for _, step := range []string{"unmount", "done"} {
		w.killed("clone", at, "done")
		all := ownClones(t)
		require.Len(t, all, 1)
		require.Equal(t, at, all[0].At)
		below := filepath.Join(at, "below")
		require.NoError(t, os.Mkdir(below, 0o700))
		run(t, "mount", "-t", "tmpfs", "below", below)
		w.killed("discard", at, step)
		if step == "unmount" {
			require.NoError(t, dataroot.Discard(ctx, at))
		}
		requireNoClones(t)
		assert.Zero(t, loops(t, w.root.Path(), 0), step)
	}
	assert.LessOrEqual(t, left-free(t, w.at), int64(1<<20))
}
