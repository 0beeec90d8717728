package dataroot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/internal/wait"
)

// loopMajor is the major number of loop devices.
const loopMajor = 7

// loopMark is the name that a loop device of this package has, in the kernel (lo_file_name):
// so a mount that this package made is known in every mount namespace, whatever it is called.
const loopMark = "dockercache-dataroot"

// mountOptions are those of a data root's file system. Inode tables are not initialised in the
// background, which would write where the clone shares; and what an engine removes is given
// back to the file system below.
const mountOptions = "noinit_itable,discard,errors=remount-ro"

// mountFile mounts the first size bytes of a file at a directory. The loop device lasts as
// long as the mount: when the last process ends that could see it, the kernel takes both away.
func mountFile(f *os.File, size int64, at string, readOnly bool) error {
	loop, err := attach(f, size, readOnly)
	if err != nil {
		return err
	}
	defer loop.Close() // the mount keeps it
	flags, options := uintptr(0), mountOptions
	if readOnly {
		flags, options = unix.MS_RDONLY, "noload"
	}
	if err := unix.Mount(loop.Name(), at, fileSystem, flags, options); err != nil {
		return fmt.Errorf("mount %s of %s at %s: %w%s", loop.Name(), f.Name(), at, err, advice(err))
	}
	return nil
}

// attach returns an open loop device of the first size bytes of a file, which goes when it is
// closed, if it is not mounted.
func attach(f *os.File, size int64, readOnly bool) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: no loop devices: %w%s", ErrUnsupported, err, advice(err))
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(f.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if readOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	config.Info.Sizelimit = uint64(size)
	copy(config.Info.File_name[:], loopMark)
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		loop, err := openLoop(n)
		if err != nil {
			return nil, fmt.Errorf("%w: loop device %d: %w%s", ErrUnsupported, n, err, advice(err))
		}
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), &config); err == nil {
			return loop, nil
		}
		_ = loop.Close()
		if !errors.Is(err, unix.EBUSY) { // another process was faster
			return nil, fmt.Errorf("attach %s to loop device %d: %w", f.Name(), n, err)
		}
	}
	return nil, errors.New("every free loop device that was tried was taken by another process")
}

// openLoop opens a loop device. In a container its file may be missing, for devices are made
// when they are first wanted.
func openLoop(n int) (*os.File, error) {
	path := "/dev/loop" + strconv.Itoa(n)
	loop, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(loopMajor, uint32(n)))); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		loop, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	return loop, err
}

// advice returns what to do about an error of the kernel, "" if that is not known.
func advice(err error) string {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return ": this needs root, and in a container --privileged (Kubernetes: securityContext.privileged)"
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return ": load the kernel's module loop, and in a container mount the machine's /dev"
	}
	return ""
}

// isOurs reports whether a loop device, by its number, was attached by this package.
func isOurs(n int) bool {
	loop, err := openLoop(n)
	if err != nil {
		return false
	}
	defer loop.Close()
	info, err := unix.IoctlLoopGetStatus64(int(loop.Fd()))
	return err == nil && unix.ByteSliceToString(info.File_name[:]) == loopMark
}

// A mount is a line of mountinfo.
type mount struct {
	at           string
	major, minor int
}

// readMounts parses what proc_pid_mountinfo(5) describes, in the order of mounting.
func readMounts(r io.Reader) (all []mount, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 {
			continue
		}
		m := mount{at: unescape(fields[4])}
		if _, err := fmt.Sscanf(fields[2], "%d:%d", &m.major, &m.minor); err != nil {
			continue
		}
		all = append(all, m)
	}
	return all, lines.Err()
}

// unescape returns a path of mountinfo, where spaces and the like are octal.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func mounts() ([]mount, error) {
	f, err := os.Open("/proc/thread-self/mountinfo") // of this thread: see inNamespace
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readMounts(f)
}

// discard unmounts the clone at a path, and what is mounted below it.
func discard(ctx context.Context, at string) error {
	all, err := mounts()
	if err != nil {
		return err
	}
	last := -1
	for i, m := range all {
		if m.at == at {
			last = i
		}
	}
	switch {
	case last < 0:
		return fmt.Errorf("%w: nothing is mounted at %s", ErrNotClone, at)
	case all[last].major != loopMajor || !isOurs(all[last].minor):
		return fmt.Errorf("%w: what is mounted at %s is something else, and stays", ErrNotClone, at)
	}
	for i := len(all) - 1; i >= 0; i-- {
		if strings.HasPrefix(all[i].at, at+"/") || i == last {
			sys.AtStep("unmount")
			if err := unmount(ctx, all[i].at); err != nil {
				return err
			}
		}
	}
	sys.AtStep("done")
	return nil
}

// unmountWait is how long unmounting waits for processes that have just ended: the kernel
// closes their files a moment after they can be waited for.
const unmountWait = 2 * time.Second

func unmount(ctx context.Context, at string) error {
	var err error
	for waited := time.Duration(0); ; {
		if err = unix.Unmount(at, unix.UMOUNT_NOFOLLOW); err == nil || errors.Is(err, unix.EINVAL) { // gone meanwhile
			return nil
		}
		const step = 50 * time.Millisecond
		if waited += step; !errors.Is(err, unix.EBUSY) || waited > unmountWait {
			break
		}
		if err := wait.Sleep(ctx, step); err != nil {
			return err
		}
	}
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w: %s%s", ErrInUse, at, users(at))
	}
	return fmt.Errorf("unmount %s: %w%s", at, err, advice(err))
}

// users names processes that have something of a mount open, for an error.
func users(at string) string {
	var info unix.Stat_t
	if unix.Stat(at, &info) != nil {
		return ""
	}
	var found []string
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	roots, _ := filepath.Glob("/proc/[0-9]*/root")
	files, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	seen := map[string]bool{}
	for _, link := range append(append(links, roots...), files...) {
		var of unix.Stat_t
		if unix.Stat(link, &of) != nil || of.Dev != info.Dev {
			continue
		}
		pid := strings.Split(link, "/")[2]
		if seen[pid] {
			continue
		}
		seen[pid] = true
		name, _ := os.ReadFile("/proc/" + pid + "/comm")
		found = append(found, fmt.Sprintf("%s (%s)", pid, strings.TrimSpace(string(name))))
		if len(found) == 5 {
			break
		}
	}
	if len(found) == 0 {
		return ": a mount in another container, or a mount of something in it elsewhere, keeps it"
	}
	return ": end these processes first: " + strings.Join(found, ", ")
}

// inNamespace calls a function in a mount namespace of its own: what it mounts is seen by it
// and by the processes that it starts alone, and is gone when the last of these has ended,
// however this process ends. The function must not leave its goroutine.
func inNamespace(do func() error) error {
	done := make(chan error)
	go func() {
		// It is never unlocked, so the thread ends with the goroutine.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err != nil {
			err = fmt.Errorf("%w: a mount namespace: %w%s", ErrUnsupported, err, advice(err))
		} else if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			err = fmt.Errorf("make mounts private: %w", err)
		} else {
			err = do()
		}
		done <- err
	}()
	return <-done
}

// trim gives the blocks that the file system at a path does not use back to its file.
func trim(at string) error {
	dir, err := os.Open(at)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("flush %s: %w", at, err)
	}
	const fitrim = 0xc0185879 // FITRIM of linux/fs.h: _IOWR('X', 121, struct fstrim_range)
	all := struct{ start, length, least uint64 }{length: math.MaxInt64}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), fitrim, uintptr(unsafe.Pointer(&all))); errno != 0 && errno != unix.EOPNOTSUPP {
		return fmt.Errorf("give back what %s does not use: %w", at, errno)
	}
	return nil // where that cannot be done the file keeps more space
}
