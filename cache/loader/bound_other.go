//go:build !linux

package loader

import "os/exec"

func runBound(cmd *exec.Cmd) error { return cmd.Run() }
