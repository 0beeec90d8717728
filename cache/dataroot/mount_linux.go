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
	"slices"
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

// mountFile mounts the first size bytes of a file at a directory, and returns the number of the
// loop device. That lasts as long as the mount: when the last process ends that could see it,
// the kernel takes both away.
func mountFile(f *os.File, size int64, at string) (n int, err error) {
	loop, n, err := attach(f, size)
	if err != nil {
		return 0, err
	}
	defer loop.Close() // the mount keeps it
	if err := unix.Mount(loop.Name(), at, fileSystem, 0, mountOptions); err != nil {
		return 0, fmt.Errorf("mount %s of %s at %s: %w%s", loop.Name(), f.Name(), at, err, advice(err))
	}
	return n, nil
}

// mountAt mounts the first size bytes of a file at an open directory, which is at a path. If that
// leads to something else by then, it is unmounted again, and an error returned.
func mountAt(ctx context.Context, f *os.File, size int64, dir *os.File, at string) error {
	var info unix.Statx_t
	if err := unix.Statx(int(dir.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &info); err != nil {
		return fmt.Errorf("find the mount that has %s: %w", at, err)
	}
	n, err := mountFile(f, size, fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return err
	}
	all, err := mounts()
	if err != nil {
		return err
	}
	// There may be more of them, where mounts are propagated to.
	all = slices.DeleteFunc(all, func(m mount) bool { return m.major != loopMajor || m.minor != n })
	for _, m := range all {
		if m.at == at && m.parent == strconv.FormatUint(info.Mnt_id, 10) {
			return nil
		}
	}
	err = fmt.Errorf("%s was moved, or something was mounted or unmounted there, just now", at)
	for _, m := range all {
		err = errors.Join(err, unmountTree(ctx, m))
	}
	return err
}

// attach returns an open loop device of the first size bytes of a file, which goes when it is
// closed, if it is not mounted.
func attach(f *os.File, size int64) (loop *os.File, n int, err error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: no loop devices: %w%s", ErrUnsupported, err, advice(err))
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(f.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	config.Info.Sizelimit = uint64(size)
	copy(config.Info.File_name[:], loopMark)
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, 0, fmt.Errorf("find a free loop device: %w", err)
		}
		loop, err := openLoop(n)
		if err != nil {
			return nil, 0, fmt.Errorf("%w: loop device %d: %w%s", ErrUnsupported, n, err, advice(err))
		}
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), &config); err == nil {
			return loop, n, nil
		}
		_ = loop.Close()
		if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("%w: Linux 5.8 or later is needed: %w", ErrUnsupported, err)
		}
		if !errors.Is(err, unix.EBUSY) { // another process was faster
			return nil, 0, fmt.Errorf("attach %s to loop device %d: %w", f.Name(), n, err)
		}
	}
	return nil, 0, errors.New("every free loop device that was tried was taken by another process")
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

// loopOf returns the open loop device with a number, for what is asked of it, and the file that
// it has, if this package has attached it; else nil.
func loopOf(n int) (loop *os.File, of unix.LoopInfo64) {
	loop, err := os.Open("/dev/loop" + strconv.Itoa(n))
	if err != nil {
		return nil, of
	}
	info, err := unix.IoctlLoopGetStatus64(int(loop.Fd()))
	if err != nil || unix.ByteSliceToString(info.File_name[:]) != loopMark {
		_ = loop.Close()
		return nil, of
	}
	return loop, *info
}

// isOurs reports whether a mount is all of a file that this package has attached, and no part of
// it that is mounted once more.
func (m *mount) isOurs() bool {
	if m.major != loopMajor || m.root != "/" {
		return false
	}
	loop, _ := loopOf(m.minor)
	if loop == nil {
		return false
	}
	return loop.Close() == nil
}

// detached waits until a loop device no longer has a file: the kernel takes it away a moment after
// the last mount, and not as long as another mount namespace has one. It reports whether it
// was.
func detached(ctx context.Context, n int, file unix.LoopInfo64) bool {
	for waited := time.Duration(0); ; waited += waitStep {
		loop, now := loopOf(n)
		if loop == nil {
			return true
		}
		_ = loop.Close()
		if now.Device != file.Device || now.Inode != file.Inode {
			return true
		}
		if waited > unmountWait || wait.Sleep(ctx, waitStep) != nil {
			return false
		}
	}
}

// A mount is a line of mountinfo.
type mount struct {
	id           string // no other mount has it as long as this one is there
	parent       string // the id of the mount that it is mounted on
	root         string // what of the file system is mounted
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
		m := mount{id: fields[0], parent: fields[1], root: fields[3], at: unescape(fields[4])}
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
	if err := canMount(); err != nil {
		return err
	}
	m, err := cloneAt(at)
	if err != nil {
		return err
	}
	loop, file := loopOf(m.minor)
	if loop == nil {
		return nil // another process has just discarded it
	}
	// One process at a time: what is below the clone is not to be taken for it.
	for {
		err := unix.Flock(int(loop.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if err := wait.Sleep(ctx, waitStep); err != nil {
			_ = loop.Close()
			return err
		}
	}
	err = unmountTree(ctx, m)
	_ = loop.Close() // as long as it is open the device stays
	if err == nil && !detached(ctx, m.minor, file) {
		err = fmt.Errorf("%w: it is unmounted here, but another mount namespace, as of a container that was started meanwhile, still has it", ErrInUse)
	}
	if err == nil {
		sys.AtStep("done")
	}
	return err
}

// cloneAt returns the mount that is seen at a path, if it is a clone.
func cloneAt(at string) (found mount, err error) {
	all, err := mounts()
	if err != nil {
		return mount{}, err
	}
	for _, m := range all {
		if m.at == at {
			found = m
		}
	}
	switch {
	case found.at == "":
		return mount{}, fmt.Errorf("%w: nothing is mounted at %s", ErrNotClone, at)
	case !found.isOurs():
		return mount{}, fmt.Errorf("%w: what is mounted at %s is something else, and stays", ErrNotClone, at)
	}
	return found, nil
}

// unmountTree unmounts what is mounted below a mount, and then that, as long as it is there.
func unmountTree(ctx context.Context, of mount) error {
	all, err := mounts()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(m mount) bool { return m.id == of.id && m.at == of.at }) {
		return nil // another process has unmounted it
	}
	for _, m := range slices.Backward(all) {
		if m.id == of.id || strings.HasPrefix(m.at, of.at+"/") {
			sys.AtStep("unmount")
			if err := unmount(ctx, m); err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	// unmountWait is how long unmounting waits for processes that have just ended: the kernel
	// closes their files a moment after they can be waited for.
	unmountWait = 2 * time.Second
	waitStep    = 50 * time.Millisecond
)

// unmount unmounts what is mounted at the mount's path, which is that.
func unmount(ctx context.Context, m mount) error {
	for waited := time.Duration(0); ; waited += waitStep {
		err := unix.Unmount(m.at, unix.UMOUNT_NOFOLLOW)
		all, listErr := mounts()
		switch isThere := slices.ContainsFunc(all, func(o mount) bool { return o.id == m.id }); {
		case listErr != nil:
			return listErr
		case !isThere:
			return nil
		case !errors.Is(err, unix.EBUSY):
			return fmt.Errorf("unmount %s: %w%s", m.at, err, advice(err))
		case waited > unmountWait:
			return fmt.Errorf("%w: %s%s", ErrInUse, m.at, users(m.at))
		}
		if err := wait.Sleep(ctx, waitStep); err != nil {
			return err
		}
	}
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
// however this process ends. It has only the machine's mounts that lead to system directories and
// to the paths to keep: what others unmount meanwhile is not kept busy. The function must not
// leave its goroutine.
func inNamespace(keep []string, do func() error) error {
	done := make(chan error)
	var run func()
	run = func() {
		// It is never unlocked, so the thread ends with the goroutine, but for the process's first.
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			defer runtime.UnlockOSThread()
			ended := make(chan struct{})
			go func() { defer close(ended); run() }()
			<-ended
			return
		}
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err != nil {
			err = fmt.Errorf("%w: a mount namespace: %w%s", ErrUnsupported, err, advice(err))
		} else if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			err = fmt.Errorf("make mounts private: %w", err)
		} else if err = leaveMounts(keep); err == nil {
			err = do()
		}
		done <- err
	}
	go run()
	return <-done
}

// systemDirectories are what a program may need of a machine.
var systemDirectories = []string{"/proc", "/sys", "/dev", "/run", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt"}

// leaveMounts unmounts, in a mount namespace of its own, what no path to keep is in.
func leaveMounts(keep []string) error {
	all, err := mounts()
	if err != nil {
		return err
	}
	isIn := func(path, dir string) bool {
		return path == dir || strings.HasPrefix(path, strings.TrimRight(dir, "/")+"/")
	}
	for _, m := range slices.Backward(all) {
		if !slices.ContainsFunc(keep, func(k string) bool { return isIn(k, m.at) }) &&
			!slices.ContainsFunc(systemDirectories, func(d string) bool { return isIn(m.at, d) || isIn(d, m.at) }) {
			_ = unix.Unmount(m.at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // or it stays busy for a while
		}
	}
	return nil
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
