// Package throttled mounts file systems that are as slow as they are set to be: for tests
// and the benchmark.
//
// The file system is an XFS, which shares blocks between files, on a loop device. The kernel
// limits the device's reads and writes by the blkio controller of cgroups v1, in the root
// cgroup: to all processes together, daemons included, and to loop devices whose files are on
// it. What is in the page cache is not limited, see [Forget]. Readers of 100 MB and more get the
// rate within 3 %, one or several; above some 500 MB/s the loop device itself can be what
// limits them.
package throttled

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUnsupported is what [Mount] wraps where devices cannot be limited, or nothing can be
// mounted: without root, with cgroups v2 alone, or in a container.
var ErrUnsupported = errors.New("disks cannot be throttled here")

// controller is where blkio of cgroups v1 is mounted; its root cgroup.
const controller = "/sys/fs/cgroup/blkio"

// A Disk is a mounted file system. Its methods are not safe for concurrent use.
type Disk struct {
	Dir           string // where it is mounted
	image, device string // device is MAJOR:MINOR
}

// Mount makes a file system of size bytes, from 512 MiB on, in a new sparse file at the path
// image, and mounts it at dir, an empty directory. There is no limit yet. Close it in the end.
func Mount(image, dir string, size int64) (d *Disk, err error) {
	if err := supported(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(image))
		}
	}()
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return nil, err
	}
	if err := run("mkfs.xfs", "-q", "-m", "reflink=1", image); err != nil {
		return nil, err
	}
	// Discard gives the image's blocks back when files are removed.
	if err := run("mount", "-t", "xfs", "-o", "loop,discard", image, dir); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	var s unix.Stat_t
	if err := unix.Stat(dir, &s); err != nil {
		return nil, errors.Join(err, unix.Unmount(dir, 0))
	}
	return &Disk{dir, image, fmt.Sprintf("%d:%d", unix.Major(s.Dev), unix.Minor(s.Dev))}, nil
}

// supported returns an error that wraps ErrUnsupported, or nil.
func supported() error {
	if err := unix.Access(filepath.Join(controller, "blkio.throttle.read_bps_device"), unix.W_OK); err != nil {
		return fmt.Errorf("%w: no blkio controller of cgroups v1: %w", ErrUnsupported, err)
	}
	if _, err := exec.LookPath("mkfs.xfs"); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	cgroups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	// Each cgroup of v1 has its own limits: what the root has is not for those below.
	if !strings.Contains("\n"+string(cgroups), ":blkio:/\n") {
		return fmt.Errorf("%w: this process is not in the root cgroup of blkio", ErrUnsupported)
	}
	return nil
}

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// SetRate limits reads to so many bytes per second, of all readers together, and writes to as
// many; 0 is no limit.
func (d *Disk) SetRate(bytesPerSecond int64) (err error) {
	limit := fmt.Appendf(nil, "%s %d", d.device, bytesPerSecond)
	for _, name := range []string{"read", "write"} {
		err = errors.Join(err, os.WriteFile(filepath.Join(controller, "blkio.throttle."+name+"_bps_device"), limit, 0))
	}
	return err
}

// Close removes the limit and the file system with its image.
func (d *Disk) Close() error {
	return errors.Join(d.SetRate(0), unix.Unmount(d.Dir, 0), os.Remove(d.image))
}

// Forget flushes the files below a directory and removes them from the page cache, so that the
// next reader reads the device. What a process has mapped stays.
func Forget(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	})
}
