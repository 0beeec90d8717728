package dataroot_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/tarballtest"
	"github.com/dockercache/dockercache/internal/testtool"
)

// newFileSystem mounts a new file system of a kind, of size bytes, and returns where.
func newFileSystem(t *testing.T, kind string, size int64) string {
	t.Helper()
	testtool.NeedMounts(t)
	testtool.NeedRoot(t)
	mkfs := testtool.Need(t, "mkfs."+kind)
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "at")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, size))
	run(t, mkfs, "-q", image)
	require.NoError(t, os.Mkdir(at, 0o755))
	run(t, "mount", "-o", "loop", image, at)
	t.Cleanup(func() { run(t, "umount", at) })
	return at
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
	return string(out)
}

// engines are the kinds with programs that this machine has.
func engines(t *testing.T) map[string]dataroot.Engine {
	t.Helper()
	all := map[string]dataroot.Engine{
		"docker":     {Kind: dataroot.Docker, Program: "dockerd"},
		"podman":     {Kind: dataroot.Podman, Program: "podman"},
		"containerd": {Kind: dataroot.Containerd, Program: "containerd"},
	}
	if newer := os.Getenv("DOCKERCACHE_NEW_DOCKERD"); newer != "" {
		all["docker 29"] = dataroot.Engine{Kind: dataroot.Docker, Program: newer}
		all["docker 29 containerd"] = dataroot.Engine{Kind: dataroot.DockerContainerd, Program: newer}
	} else {
		all["docker 29 containerd"] = dataroot.Engine{}
	}
	switch dir := os.Getenv("DOCKERCACHE_CONTAINERD2"); dir {
	case "":
		all["containerd 2"] = dataroot.Engine{}
	case "skipped": // .ci/run could not build it
	default:
		all["containerd 2"] = dataroot.Engine{Kind: dataroot.Containerd, Program: filepath.Join(dir, "containerd")}
	}
	return all
}

// A world is a directory with tarballs and templates on a file system.
type world struct {
	t    *testing.T
	at   string // of the file system
	dir  *cache.Dir
	root *dataroot.Dir
}

func newWorld(t *testing.T, kind string) *world {
	t.Helper()
	at := newFileSystem(t, kind, 16<<30)
	path := filepath.Join(at, "cache")
	require.NoError(t, os.Mkdir(path, 0o755))
	return openWorld(t, at)
}

func openWorld(t *testing.T, at string) *world {
	path := filepath.Join(at, "cache")
	dir, err := cache.Open(path, nil)
	require.NoError(t, err)
	root, err := dataroot.Open(path, &dataroot.Options{Size: 1 << 30})
	require.NoError(t, err)
	return &world{t, at, dir, root}
}

// stock makes a tarball of layers with these names, of a MiB each.
func (w *world) stock(name, reference string, layers ...string) *tarball.Tarball {
	w.t.Helper()
	require.NoError(w.t, tarballtest.Stock(w.dir, name, reference, 1<<20, layers...))
	tb, err := w.dir.Get(context.Background(), name)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = tb.Close() })
	return tb
}

// clonesBelow is what the paths of this package's clones begin with.
var clonesBelow = filepath.Join(os.TempDir(), "dataroot-test-")

// ownClones are those of this package's tests: others may run at the same time.
func ownClones(t *testing.T) []dataroot.Clone {
	t.Helper()
	all, err := dataroot.Clones()
	require.NoError(t, err)
	return slices.DeleteFunc(all, func(c dataroot.Clone) bool { return !strings.HasPrefix(c.At, clonesBelow) })
}

// mountPoint makes an empty directory outside of the file system.
func mountPoint(t *testing.T) string {
	t.Helper()
	at, err := os.MkdirTemp("", filepath.Base(clonesBelow))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.Remove(at)) })
	return at
}

// clone clones a template, and discards it in the end if the test has not.
func (w *world) clone(name string) *dataroot.Clone {
	w.t.Helper()
	at := mountPoint(w.t)
	c, err := w.root.Clone(context.Background(), name, at, nil)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = dataroot.Discard(context.Background(), at) })
	return c
}
