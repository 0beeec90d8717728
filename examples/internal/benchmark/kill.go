//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// killAt is the part of a layer after which the program is killed.
const killAt = 0.9

// killed is what a program did that was killed and run again.
type killed struct {
	size   int64 // of the image
	before int64 // bytes that the registry gave it, up to its death
	again  int64 // bytes of layers that the next run downloaded
	wall   time.Duration
}

// measureKill kills docker-cache with SIGKILL at 90 % of the giant layer over
// limited connections, and runs it again. The other programs cannot resume:
// they download all of it again.
func (b *bench) measureKill(ctx context.Context) error {
	works := b.options.selected()
	giant := slices.IndexFunc(works, func(w work) bool { return w.name == "giant" })
	if !b.options.kill || giant < 0 {
		return nil
	}
	w := works[giant]
	tool := b.tools[0].(*commandTool)
	out := filepath.Join(b.scratch, "out")
	if err := os.Mkdir(out, 0o700); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(out) }() // the whole scratch directory goes in the end
	host := b.server.hosts[limited]
	args := tool.args(w.reference(host), host, out)
	start, err := b.server.written(ctx, -1)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), tool.env...)
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err = b.server.written(ctx, start+int64(killAt*float64(w.size)))
	killErr := cmd.Process.Kill()
	var exit *exec.ExitError
	if waitErr := cmd.Wait(); !errors.As(waitErr, &exit) || exit.Exited() {
		return fmt.Errorf("%s ended before it was killed: %w", ours, waitErr)
	}
	if err := errors.Join(err, killErr); err != nil {
		return err
	}

	// It has got some more since the answer came.
	at, err := b.server.written(ctx, -1)
	if err != nil {
		return err
	}
	b.kill = &killed{size: w.size, before: at - start}
	cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), tool.env...)
	cmd.Stderr = os.Stderr
	begin := time.Now()
	answer, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("run again: %w", err)
	}
	b.kill.wall = time.Since(begin)
	var result struct {
		Downloaded int64 `json:"bytes_downloaded"`
	}
	if err := json.Unmarshal(answer, &result); err != nil {
		return fmt.Errorf("run again: %w", err)
	}
	b.kill.again = result.Downloaded
	return checkTarball(out, w)
}
