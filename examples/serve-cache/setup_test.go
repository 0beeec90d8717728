package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// process is a serve-cache that runs.
type process struct {
	cmd     *exec.Cmd
	address string // from the first line of its standard output
	stdout  *bufio.Reader
	stderr  bytes.Buffer
	line    string
}

// start runs serve-cache until ctx ends, in a directory, and waits for its first line.
func start(ctx context.Context, dir string, env []string, args ...string) (*process, error) {
	path, err := exec.LookPath("serve-cache") // testscript.Main put it on PATH
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, path, args...)}
	p.cmd.Dir, p.cmd.Env, p.cmd.Stderr = dir, env, &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.stdout = bufio.NewReader(out)
	p.line, err = p.stdout.ReadString('\n')
	_, p.address, _ = strings.Cut(strings.TrimSpace(p.line), " at http://")
	if err != nil || p.address == "" {
		_ = p.cmd.Process.Kill()
		return nil, fmt.Errorf("first line %q, %w, %w: %s", p.line, err, p.cmd.Wait(), p.stderr.String())
	}
	return p, nil
}

// stop sends a signal and returns the exit code.
func (p *process) stop(s os.Signal) (int, error) {
	if err := p.cmd.Process.Signal(s); err != nil {
		return 0, err
	}
	rest, err := io.ReadAll(p.stdout)
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if len(rest) > 0 {
		return 0, fmt.Errorf("it printed more than a line: %q", rest)
	}
	return p.cmd.ProcessState.ExitCode(), err
}
