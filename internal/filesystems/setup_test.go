package filesystems

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/internal/tarballtest"
	"github.com/dockercache/dockercache/internal/testtool"
)

const mib = 1 << 20

// source has the layers of images in memory.
type source struct{ tarballtest.Blobs }

func newSource() *source { return &source{tarballtest.Blobs{}} }

// layer is a seed and a size. The same seed and size give the same layer.
type layer struct {
	seed string
	size int
}

// image makes an image of layers.
func (s *source) image(reference string, layers ...layer) (*tarball.Image, error) {
	var all []v1.Layer
	for _, l := range layers {
		one, err := l.make()
		if err != nil {
			return nil, err
		}
		all = append(all, one)
		maps.Copy(s.Blobs, one.blobs)
	}
	img, _, err := tarballtest.Image(reference, all...)
	return img, err
}

// madeLayer is a layer and its bytes.
type madeLayer struct {
	v1.Layer
	blobs tarballtest.Blobs
}

// made are all layers so far: with the race detector it takes longer to make one than to
// store it.
var made struct {
	sync.Mutex
	layers map[layer]madeLayer
}

func (l layer) make() (madeLayer, error) {
	made.Lock()
	defer made.Unlock()
	if found, ok := made.layers[l]; ok {
		return found, nil
	}
	packed, err := imagetest.Layer(l.seed, l.size)
	if err != nil {
		return madeLayer{}, err
	}
	one := madeLayer{packed, tarballtest.Blobs{}}
	if made.layers == nil {
		made.layers = map[layer]madeLayer{}
	}
	made.layers[l] = one
	return one, one.blobs.Add(packed)
}

// A fileSystem is one that tests run on.
type fileSystem struct {
	name  string
	mkfs  []string // with the image's path at its end; nil for none
	mount func(image, at string) []string
	clone bool // it has reflinks
}

func loop(image, at string) []string { return []string{"-o", "loop", image, at} }

var fileSystems = []fileSystem{
	{"xfs", []string{"mkfs.xfs", "-q", "-m", "reflink=1"}, loop, true},
	{"btrfs", []string{"mkfs.btrfs", "-q"}, loop, true},
	{"ext4", []string{"mkfs.ext4", "-q"}, loop, false},
	{"tmpfs", nil, func(_, at string) []string { return []string{"-t", "tmpfs", "-o", "size=600m", "tmpfs", at} }, false},
}

// mounted mounts a file system of some MiB, of its own, until the test ends. It
// skips the test where that is not possible, and in CI fails.
func (fs fileSystem) mounted(t *testing.T, size int64) string {
	t.Helper()
	testtool.NeedRoot(t)
	image, at := filepath.Join(inMemory(t), "image"), t.TempDir()
	if fs.mkfs != nil {
		f, err := os.Create(image)
		require.NoError(t, err)
		require.NoError(t, f.Truncate(size*mib))
		require.NoError(t, f.Close())
		run(t, testtool.Need(t, fs.mkfs[0]), append(fs.mkfs[1:], image)...)
	}
	mount(t, at, fs.mount(image, at)...)
	dir := filepath.Join(at, "cache")
	require.NoError(t, os.Mkdir(dir, 0o755))
	return dir
}

// inMemory returns a directory for the images of file systems, in memory where
// that is possible: what they flush must not keep the machine's disk busy.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "filesystems")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// overlay mounts an overlay, as a container's root is, above a directory.
func overlay(t *testing.T) string {
	t.Helper()
	return fileSystems[3].overlay(t)
}

func (fs fileSystem) overlay(t *testing.T) string {
	t.Helper()
	base := fs.mounted(t, 200)
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		require.NoError(t, os.Mkdir(filepath.Join(base, d), 0o755))
	}
	merged := filepath.Join(base, "merged")
	mount(t, merged, "-t", "overlay", "-o", fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", base), "overlay", merged)
	return merged
}

// mount mounts something until the test ends. Where nothing at all can be mounted,
// as in a container without that right, the test is skipped, in CI too; where a
// tmpfs can be, whatever else cannot be is missing.
func mount(t *testing.T, at string, args ...string) {
	t.Helper()
	out, err := exec.Command(testtool.Need(t, "mount"), args...).CombinedOutput()
	if err != nil {
		testtool.NeedMounts(t)
		testtool.Missing(t, "mount %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	t.Cleanup(func() { unmount(t, at) })
}

// unmount unmounts what mount has mounted. A process that another test is starting has all open
// files until it executes its program, so that what was just closed is busy for an instant.
func unmount(t *testing.T, at string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		out, err := exec.Command("umount", at).CombinedOutput()
		assert.NoError(c, err, "umount %s\n%s", at, out)
	}, 10*time.Second, 50*time.Millisecond)
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %s\n%s", name, strings.Join(args, " "), out)
}

// used returns how many bytes of a file system are in use.
func used(t *testing.T, dir string) int64 {
	t.Helper()
	// What was written but not yet given a place does not count before.
	f, err := os.Open(dir)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, unix.Syncfs(int(f.Fd())))
	var s syscall.Statfs_t
	require.NoError(t, syscall.Statfs(dir, &s))
	return int64(s.Blocks-s.Bfree) * int64(s.Bsize)
}

// names returns what is in a directory, but for marks and recorded verifications.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".mark") && !strings.HasSuffix(e.Name(), ".verified") && e.Name() != "lost+found" {
			names = append(names, e.Name())
		}
	}
	return names
}

// requireIntact verifies a tarball, and returns its manifest's digest.
func requireIntact(t *testing.T, dir *cache.Dir, name string) v1.Hash {
	t.Helper()
	stocked, err := dir.Get(t.Context(), name)
	require.NoError(t, err)
	defer stocked.Close() // a file system with an open file cannot be unmounted
	require.NoError(t, stocked.Verify(t.Context(), nil))
	return stocked.Image.Digest()
}
