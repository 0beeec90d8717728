//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const measureCommand = "measure"

// usage is what one pull or load cost.
type usage struct {
	Wall    time.Duration
	CPU     time.Duration // user and system, children that were waited for included
	Peak    int64         // resident memory, bytes
	Written int64         // bytes given to write and copy calls, sockets included
	Engine  int64         // the same by an engine that worked for it; not in Written
	Sent    int64         // bytes that the bucket sent for it, where that is counted
}

// measured runs a program to its end and returns what it cost. A process of its
// own stands between: a child's peak memory begins at that of the process that
// forks it, and the benchmark may be larger than what it measures.
func measured(ctx context.Context, env []string, args ...string) (u *usage) {
	cmd := exec.CommandContext(ctx, os.Args[0], append([]string{measureCommand}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	r, w, err := os.Pipe()
	check(err)
	defer r.Close()
	cmd.ExtraFiles = []*os.File{w}
	out, err := cmd.CombinedOutput()
	_ = w.Close() // nothing was written to it here
	if err != nil {
		check(fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out))
	}
	check(json.NewDecoder(r).Decode(&u))
	return u
}

// measure is the process between: it runs the program and writes a [usage] to
// file descriptor 3.
func measure(args []string) {
	result := os.NewFile(3, "result")
	syscall.CloseOnExec(3)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// A benchmark that is interrupted leaves no program behind.
	runtime.LockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	start := time.Now()
	check(cmd.Start())
	waitForEnd(cmd.Process.Pid)
	u := usage{Wall: time.Since(start)}
	u.Written = writtenBy(cmd.Process.Pid)
	check(cmd.Wait())
	s := cmd.ProcessState
	u.CPU = s.UserTime() + s.SystemTime()
	u.Peak = int64(s.SysUsage().(*syscall.Rusage).Maxrss) << 10 // KiB on Linux, getrusage(2)
	check(json.NewEncoder(result).Encode(u))
}

// waitForEnd waits until a child has ended, and does not reap it: its counters can
// still be read.
func waitForEnd(pid int) {
	err := error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		err = unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	}
	check(err)
}

// warmTimes is how many times the image's size is touched before a pull: the
// peers write an image up to twice, docker in part one after the other.
const warmTimes = 3

// warm touches as much free memory as a pull will use. In a virtual machine the
// host gives a page only when it is first touched, and may take it back when it
// was free for some seconds; that costs four times what writing to the page
// does, and would be counted for the program that comes first. No more is touched than half of
// what is available.
func warm(bytes int64) {
	bytes = min(bytes, memAvailable()/2)
	check(unix.Munmap(must(unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE))))
}

// memAvailable is how much memory can be had without swapping, proc_meminfo(5).
func memAvailable() int64 {
	return must(fieldOf("/proc/meminfo", "MemAvailable:")) << 10 // KiB
}

// output runs a command that is not measured and returns what it prints.
func output(ctx context.Context, env []string, args ...string) string {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		check(fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out))
	}
	return strings.TrimSpace(string(out))
}

// usageOf adds up what running processes have used so far: CPU time and bytes
// written since they began, and the most memory since the peak was reset.
func usageOf(pids []int) (total usage) {
	for _, pid := range pids {
		total.CPU += cpuOf(pid)
		total.Peak += must(procField(pid, "status", "VmHWM:")) << 10 // KiB
		total.Written += writtenBy(pid)
	}
	return total
}

// writtenBy returns wchar of a process and the children that it waited for, by
// proc_pid_io(5): bytes of write, sendfile and copy_file_range calls, to files,
// pipes and sockets. (write_bytes would be what reached a disk.)
func writtenBy(pid int) int64 { return must(procField(pid, "io", "wchar:")) }

// procField returns the number after a key in a process's file of /proc.
func procField(pid int, file, key string) (int64, error) {
	return fieldOf(fmt.Sprintf("/proc/%d/%s", pid, file), key)
}

// fieldOf returns the number after a key in a file.
func fieldOf(path, key string) (int64, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == key {
			return strconv.ParseInt(fields[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, key)
}

// cpuOf returns the CPU time of a running process and the children that it
// waited for, by proc_pid_stat(5), in steps of 10 ms.
func cpuOf(pid int) time.Duration {
	content := must(os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)))
	// The second field is a name that may hold blanks; utime to cstime are 14 to 17.
	_, rest, _ := strings.Cut(string(content), ") ")
	var ticks int64
	for _, field := range strings.Fields(rest)[11:15] {
		ticks += must(strconv.ParseInt(field, 10, 64))
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 on all of Linux
}

// childrenOf returns the processes that a process started and did not reap.
func childrenOf(pid int) (found []int) {
	for _, e := range must(os.ReadDir("/proc")) {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// One that has ended meanwhile is none.
		if parent, err := procField(child, "status", "PPid:"); err == nil && int(parent) == pid {
			found = append(found, child)
		}
	}
	return found
}
