package loader

import (
	"os/exec"
	"runtime"
	"syscall"
)

// runBound runs a program that ends with this one, also when this one is killed: a
// ctr that goes on holds what it was writing in containerd, and the process that
// loads the same image next waits for it.
func runBound(cmd *exec.Cmd) error {
	// The signal comes when the thread ends that started the program (prctl(2),
	// PR_SET_PDEATHSIG), so this one must not.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd.Run()
}
