package sys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// localMagics are the numbers (linux/magic.h) of file systems that one kernel alone
// writes to: its locks reach every process that has a file of one open. A share, a
// FUSE mount or a cluster's file system above one has a number of its own.
var localMagics = []int64{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC,
	0x2FC12FC1, // ZFS
	0xCA451A4E, // bcachefs
}

// Writer returns a line without a line break that names which process on which kernel
// writes f, and on what kind of file system it sees f: what [IsDead] needs to know. It
// is empty where that is not known.
func Writer(f *os.File) string {
	p, ok := thisProcess()
	if !ok {
		return ""
	}
	return fmt.Sprintf("%x %s %s %d %d %s", magicOf(f), p.boot, p.namespace, p.pid, p.start, p.host)
}

// IsDead reports whether the process of which writer is the line can no longer write to
// f, on the word of a kernel: the lock that the caller holds on f is one that it would
// have, or it was a process of this kernel that has ended. false is "it may live": a
// line of another host, of a container with process numbers of its own, or none.
//
// That a file has not been written to for long shows nothing: a machine can be
// suspended, and a mount can hang.
func IsDead(f *os.File, writer string) bool {
	var magic int64
	var was process
	if n, _ := fmt.Sscanf(writer, "%x %s %s %d %d %s", &magic, &was.boot, &was.namespace, &was.pid, &was.start, &was.host); n < 5 {
		return false
	}
	// Both must see the same kind: a file of ext4 that its writer sees as one of a share,
	// or of FUSE, is locked there and not here.
	if magic == magicOf(f) && slices.Contains(localMagics, magic) {
		held, err := TryLock(f)
		return !held && err == nil
	}
	me, ok := thisProcess()
	// Machines that were cloned while they ran have the same boot identifier.
	return ok && was.boot == me.boot && was.namespace == me.namespace && was.host == me.host && !isRunning(was.pid, was.start)
}

// magicOf returns the number of the file system that f is on; 0 if it is not known.
func magicOf(f *os.File) int64 {
	var s unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &s) != nil {
		return 0
	}
	return int64(uint32(s.Type))
}

// A process is one among all that have ever run on a kernel.
type process struct {
	boot, namespace string // of process numbers
	pid             int
	start           uint64 // clock ticks since the kernel's start
	host            string
}

// thisProcess returns what this process is. It reports false where /proc is missing or
// shows the processes of another namespace.
func thisProcess() (p process, ok bool) {
	self, err := os.Readlink("/proc/self")
	if p.pid = os.Getpid(); err != nil || self != strconv.Itoa(p.pid) {
		return p, false
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return p, false
	}
	if p.namespace, err = os.Readlink("/proc/self/ns/pid"); err != nil {
		return p, false
	}
	p.boot = strings.TrimSpace(string(boot))
	p.host, _ = os.Hostname()
	_, p.start, err = statOf(p.pid)
	return p, err == nil && p.boot != ""
}

// isRunning reports whether a process of this namespace may still run: one that has this
// number and began at this time, or of which that cannot be seen.
func isRunning(pid int, start uint64) bool {
	if errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return false
	}
	state, began, err := statOf(pid)
	if err != nil || began != start {
		return err != nil
	}
	// One that has ended and was not waited for. While a thread of it hangs in a write it
	// looks the same.
	threads, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	return state != "Z" || err != nil || len(threads) > 1
}

// statOf returns a process's state and when it began, see proc_pid_stat(5).
func statOf(pid int) (state string, start uint64, err error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", 0, err
	}
	// After the name, which may have any character, in brackets.
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	if len(fields) < 20 {
		return "", 0, fmt.Errorf("/proc/%d/stat: %q", pid, raw)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0], start, err
}
