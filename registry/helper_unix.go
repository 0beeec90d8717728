//go:build unix && !linux

package registry

import (
	"os/exec"
	"syscall"
)

// isolate makes a program and all that it starts one process group, which ends with
// kill.
func isolate(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func kill(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
