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
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const measureCommand = "measure"

// usage is what one pull cost.
type usage struct {
	Wall    time.Duration
	CPU     time.Duration // user and system, children that were waited for included
	Peak    int64         // resident memory, bytes
	Written int64         // bytes given to write and copy calls, sockets included
	Daemon  int64         // the same by an engine that worked for it; not in Written
}

// measured runs a program to its end and returns what it cost. A process of its
// own stands between: a child's peak memory begins at that of the process that
// forks it, and the benchmark may be larger than what it measures.
func measured(ctx context.Context, env []string, args ...string) (*usage, error) {
	cmd := exec.CommandContext(ctx, os.Args[0], append([]string{measureCommand}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{w}
	out, err := cmd.CombinedOutput()
	_ = w.Close() // nothing was written to it here
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	u := &usage{}
	return u, json.NewDecoder(r).Decode(u)
}

// measure is the process between: it runs the program and writes a [usage] to
// file descriptor 3.
func measure(args []string) error {
	result := os.NewFile(3, "result")
	syscall.CloseOnExec(3)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// A benchmark that is interrupted leaves no program behind.
	runtime.LockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	// Once it has ended and before it is reaped, its counters can be read.
	var err error
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	}
	u := usage{Wall: time.Since(start)}
	if err != nil {
		return err
	}
	if u.Written, err = writtenBy(cmd.Process.Pid); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return err
	}
	s := cmd.ProcessState
	u.CPU = s.UserTime() + s.SystemTime()
	u.Peak = s.SysUsage().(*syscall.Rusage).Maxrss << 10 // KiB on Linux, getrusage(2)
	return json.NewEncoder(result).Encode(u)
}
