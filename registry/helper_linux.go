package registry

import (
	"os/exec"
	"syscall"
)

// isolate makes a program and all that it starts one process group, which ends with
// kill; the program also ends with this one, however that ends.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func kill(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
