//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// writtenBy returns wchar of a process and the children that it waited for, by
// proc_pid_io(5): bytes of write, sendfile and copy_file_range calls, whether
// they went to a file, a pipe or a socket. (write_bytes would be those that
// reached a disk, of which there is none.)
func writtenBy(pid int) (int64, error) {
	return procField(pid, "io", "wchar:")
}

// peakOf returns the most memory that a running process had since resetPeak.
func peakOf(pid int) (int64, error) {
	kib, err := procField(pid, "status", "VmHWM:")
	return kib << 10, err
}

func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) // proc_pid_clear_refs(5)
}

// procField returns the number after a key in a file of /proc.
func procField(pid int, file, key string) (int64, error) {
	path := fmt.Sprintf("/proc/%d/%s", pid, file)
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
func cpuOf(pid int) (time.Duration, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is a name that may hold blanks; utime to cstime are 14 to 17.
	_, rest, _ := strings.Cut(string(content), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return 0, fmt.Errorf("/proc/%d/stat has too few fields", pid)
	}
	var ticks int64
	for _, field := range fields[11:15] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil // USER_HZ is 100 on all of Linux
}

// childrenOf returns the processes that a process started and did not reap.
func childrenOf(pid int) []int {
	var found []int
	entries, _ := os.ReadDir("/proc") // what cannot be read has no children
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent, err := procField(child, "status", "PPid:"); err == nil && int(parent) == pid {
			found = append(found, child)
		}
	}
	return found
}
