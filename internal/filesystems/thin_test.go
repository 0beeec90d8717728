package filesystems

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/testtool"
)

// A thinVolume promises its file system more room than there is behind it: a write
// that is accepted into memory fails on its way to the disk.
type thinVolume struct {
	below, at string // where the room is, and where the file system is
	fs        fileSystem
}

// thin makes a volume that has its file system's own blocks, and no more.
func (fs fileSystem) thin(t *testing.T) *thinVolume {
	t.Helper()
	testtool.NeedRoot(t)
	v := &thinVolume{t.TempDir(), t.TempDir(), fs}
	mount(t, v.below, "-t", "tmpfs", "-o", "size=1g", "tmpfs", v.below)
	f, err := os.Create(v.image())
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Truncate(400*mib))
	run(t, testtool.Need(t, fs.mkfs[0]), append(fs.mkfs[1:], v.image())...)
	// Also what mkfs has skipped, such as the log.
	require.NoError(t, unix.Fallocate(int(f.Fd()), 0, 0, 400*mib))
	mount(t, v.at, fs.mount(v.image(), v.at)...)
	run(t, testtool.Need(t, "fstrim"), v.at)
	require.NoError(t, os.Mkdir(v.dir(), 0o755))
	return v
}

func (v *thinVolume) image() string { return filepath.Join(v.below, "image") }
func (v *thinVolume) dir() string   { return filepath.Join(v.at, "cache") }

// leave leaves so much room behind the volume.
func (v *thinVolume) leave(t *testing.T, bytes int64) {
	t.Helper()
	_ = exec.Command("sync", "-f", v.at).Run() // fails while the volume is full
	var s unix.Statfs_t
	require.NoError(t, unix.Statfs(v.below, &s))
	used := int64(s.Blocks-s.Bfree) * s.Bsize
	run(t, "mount", "-o", fmt.Sprintf("remount,size=%d", used+bytes), v.below)
}

// again mounts the volume again, so that all is read from it.
func (v *thinVolume) again(t *testing.T) {
	t.Helper()
	unmount(t, v.at)
	run(t, "mount", v.fs.mount(v.image(), v.at)...)
}

func thinImage(t *testing.T) (*source, *tarball.Image) {
	src, img, err := newThinImage()
	require.NoError(t, err)
	return src, img
}

func newThinImage() (*source, *tarball.Image, error) {
	src := newSource()
	img, err := src.image("example.com/a:1", layer{"thin", 30 * mib}, layer{"thinner", mib})
	return src, img, err
}

func onThinVolumes(t *testing.T, test func(t *testing.T, v *thinVolume)) {
	for _, fs := range fileSystems {
		if fs.name == "ext4" || fs.name == "xfs" { // btrfs writes its own blocks to new places
			t.Run(fs.name, func(t *testing.T) { test(t, fs.thin(t)) })
		}
	}
}

// A volume that is full for a moment: the attempt fails when it flushes, and the next one
// believes nothing of what that wrote, though memory has the right bytes.
func TestFlushToAThinVolume(t *testing.T) {
	onThinVolumes(t, func(t *testing.T, v *thinVolume) {
		src, img := thinImage(t)
		v.leave(t, 5*mib)
		dir, err := cache.Open(v.dir(), nil)
		require.NoError(t, err)
		_, err = dir.Put(t.Context(), "a_main.tar", img, src, nil)
		require.Error(t, err)
		require.ErrorContains(t, err, "flush")
		assert.Empty(t, names(t, v.dir()))

		v.leave(t, 300*mib)
		result, err := dir.Put(t.Context(), "a_main.tar", img, src, nil)
		require.NoError(t, err)
		assert.Greater(t, result.Downloaded, int64(30*mib))
		v.again(t)
		requireIntact(t, dir, "a_main.tar")
		assert.Equal(t, []string{"a_main.tar"}, names(t, v.dir()))
	})
}

// The same, killed before it flushes, or before it can remove what it wrote.
func TestKilledOnAThinVolume(t *testing.T) {
	for name, reported := range map[string]bool{"before the flush": false, "after the flush": true} {
		t.Run(name, func(t *testing.T) {
			onThinVolumes(t, func(t *testing.T, v *thinVolume) {
				v.leave(t, 5*mib)
				self, err := os.Executable()
				require.NoError(t, err)
				child := exec.Command(self)
				child.Env = append(os.Environ(), roleVar+"=thin", dirVar+"="+v.dir())
				child.Stderr = os.Stderr
				out, err := child.StdoutPipe()
				require.NoError(t, err)
				require.NoError(t, child.Start())
				defer child.Wait()
				require.True(t, bufio.NewScanner(out).Scan(), "it has written most of it")
				_ = exec.Command("sync", "-f", v.at).Run() // the kernel writes when it likes
				found, err := filepath.Glob(filepath.Join(v.dir(), ".*.partial"))
				require.NoError(t, err)
				require.Len(t, found, 1)
				if reported {
					f, err := os.Open(found[0])
					require.NoError(t, err)
					require.Error(t, f.Sync(), "the process that was killed saw it, no other does")
					require.NoError(t, f.Sync())
					require.NoError(t, f.Close())
				}
				require.NoError(t, child.Process.Kill())
				_, _ = io.Copy(io.Discard, out)

				v.leave(t, 300*mib)
				src, img := thinImage(t)
				dir, err := cache.Open(v.dir(), nil)
				require.NoError(t, err)
				result, err := dir.Put(t.Context(), "a_main.tar", img, src, nil)
				require.NoError(t, err)
				assert.Equal(t, cache.Stocked, result.Outcome)
				v.again(t)
				requireIntact(t, dir, "a_main.tar")
				assert.Equal(t, []string{"a_main.tar"}, names(t, v.dir()))
			})
		})
	}
}

// writeThin writes most of an image, and waits to be killed.
func writeThin() error {
	src, img, err := newThinImage()
	if err != nil {
		return err
	}
	dir, err := cache.Open(os.Getenv(dirVar), &cache.Options{Connections: 1})
	if err != nil {
		return err
	}
	_, err = dir.Put(context.Background(), "a_main.tar", img, endless{src}, nil)
	return err
}

// endless gives nothing beyond a part of the large layer.
type endless struct{ *source }

func (e endless) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	r, err := e.source.ReadRange(ctx, digest, offset, length)
	if err != nil || offset+length <= 20*mib {
		return r, err
	}
	return &ending{ReadCloser: r, ctx: ctx, left: max(20*mib-offset, 0)}, nil
}

// ending gives so many bytes, and then nothing.
type ending struct {
	io.ReadCloser
	ctx  context.Context
	left int64
}

func (e *ending) Read(p []byte) (int, error) {
	if e.left == 0 {
		fmt.Println("written")
		<-e.ctx.Done()
		return 0, e.ctx.Err()
	}
	n, err := e.ReadCloser.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	return n, err
}

// A volume that is full while an attempt resumes what another left there.
func TestResumeOnAThinVolume(t *testing.T) {
	onThinVolumes(t, func(t *testing.T, v *thinVolume) {
		src, img := thinImage(t)
		dir, err := cache.Open(v.dir(), nil)
		require.NoError(t, err)
		refused := fmt.Errorf("refused")
		_, err = dir.Put(t.Context(), "a_main.tar", img, &refusing{src, 15 * mib, refused}, nil)
		require.ErrorIs(t, err, refused)
		require.Len(t, names(t, v.dir()), 2, strings.Join(names(t, v.dir()), " "))
		v.leave(t, mib)
		_, err = dir.Put(t.Context(), "a_main.tar", img, src, nil)
		require.Error(t, err)
		assert.Empty(t, names(t, v.dir()))
		v.leave(t, 300*mib)
		_, err = dir.Put(t.Context(), "a_main.tar", img, src, nil)
		require.NoError(t, err)
		v.again(t)
		requireIntact(t, dir, "a_main.tar")
	})
}

// refusing fails beyond an offset, for good.
type refusing struct {
	*source
	from int64
	err  error
}

func (r *refusing) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	if offset >= r.from {
		return nil, tarball.Permanent(r.err)
	}
	return r.source.ReadRange(ctx, digest, offset, length)
}
