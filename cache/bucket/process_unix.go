//go:build unix

package bucket

import "syscall"

// isGonePID reports whether no process of this machine has a number.
func isGonePID(pid int) bool { return syscall.Kill(pid, 0) == syscall.ESRCH }
