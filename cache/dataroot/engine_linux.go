package dataroot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dockercache/dockercache/cache/loader"
)

// A running is an engine that has been started on a data root.
type running struct {
	loader.Engine
	kind    Kind
	program string
	cmd     *exec.Cmd
	ended   chan struct{} // closed when cmd was waited for
	log     *tail
	limit   time.Duration // for starting, and for stopping
}

// command returns what starts an engine with its data root, without a network, on a socket in
// a private directory, and the engine's address.
func (e Engine) command(root, private string) (cmd *exec.Cmd, address string, err error) {
	config := filepath.Join(private, "config") // keeps the machine's own out
	socket := filepath.Join(private, "s")
	address = "unix://" + socket
	switch e.Kind {
	case Docker, DockerContainerd:
		settings := fmt.Sprintf(`{"features":{"containerd-snapshotter":%t}}`, e.Kind == DockerContainerd)
		args := []string{"--iptables=false", "--ip6tables=false", "--bridge=none", "-H", address, "--data-root", root,
			"--exec-root", filepath.Join(private, "exec"), "--pidfile", filepath.Join(private, "pid"), "--config-file", config,
			"--storage-driver=" + kinds[e.Kind].driver}
		return exec.Command(e.program(), args...), address, os.WriteFile(config, []byte(settings), 0o600)
	case Podman:
		return exec.Command(e.program(), "--root", root, "--runroot", filepath.Join(private, "run"), "--storage-driver", kinds[e.Kind].driver,
			"--tmpdir", filepath.Join(private, "tmp"), "--log-level", "info", "system", "service", "--time", "0", address), address, nil
	}
	settings := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = %q\n",
		root, filepath.Join(private, "state"), socket)
	return exec.Command(e.program(), "--config", config), "containerd://" + socket, os.WriteFile(config, []byte(settings), 0o600)
}

// start starts the engine. It must be called in [inNamespace], and the engine is stopped
// before that ends: it is the first process of a process namespace, so that its children end
// with it, and it ends with this process, however that ends. It has no network but its socket.
func (e Engine) start(ctx context.Context, root, private string, limit time.Duration) (_ *running, err error) {
	r := &running{kind: e.Kind, program: e.program(), log: &tail{ready: kinds[e.Kind].ready, isReady: make(chan struct{})}, ended: make(chan struct{}), limit: limit}
	cmd, address, err := e.command(root, private)
	if err != nil {
		return nil, err
	}
	r.cmd = cmd
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", r.program, err)
	}
	go func() {
		_ = r.cmd.Wait()
		close(r.ended)
	}()
	defer func() {
		if err != nil {
			r.kill()
		}
	}()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case <-r.log.isReady:
	case <-r.ended:
		return nil, fmt.Errorf("%s ended at once: %s", r.program, r.log)
	case <-timeout.C:
		return nil, fmt.Errorf("%s does not listen after %v: %s", r.program, limit, r.log)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	host, err := loader.ParseHost(address)
	if err != nil {
		return nil, err
	}
	r.Engine, err = loader.Open(ctx, host)
	return r, err
}

// stop stops the engine, which so writes all that it keeps in memory.
func (r *running) stop() error {
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	timeout := time.NewTimer(r.limit)
	defer timeout.Stop()
	select {
	case <-r.ended:
	case <-timeout.C:
		r.kill()
		return fmt.Errorf("%s does not stop after %v: %s", r.program, r.limit, r.log)
	}
	if state := r.cmd.ProcessState; !state.Success() && r.kind != Podman { // podman answers a signal with it
		return fmt.Errorf("%s: %v: %s", r.program, state, r.log)
	}
	return nil
}

func (r *running) kill() {
	_ = r.cmd.Process.Kill()
	<-r.ended
}

// tidy removes from a data root what is of this machine alone.
func (e Engine) tidy(root string) error {
	var all []error
	for _, path := range kinds[e.Kind].forget {
		all = append(all, os.RemoveAll(filepath.Join(root, path)))
	}
	return errors.Join(all...)
}

// holds reports whether the data root has images in the form of the engine's kind.
func (e Engine) holds(root string) error {
	if _, err := os.Lstat(filepath.Join(root, kinds[e.Kind].holds)); err != nil {
		return fmt.Errorf("%s does not keep images as %s does: %w", e.program(), e.Kind, err)
	}
	return nil
}

// A tail keeps the end of what an engine logs, and waits for the line that says that it is
// ready.
type tail struct {
	ready   string
	isReady chan struct{}

	mu    sync.Mutex
	last  []byte
	found bool
}

const tailLength = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	if !t.found && bytes.Contains(t.last, []byte(t.ready)) {
		t.found = true
		close(t.isReady)
	}
	if len(t.last) > 2*tailLength {
		t.last = bytes.Clone(t.last[len(t.last)-tailLength:])
	}
	return len(p), nil
}

// String returns the last lines that matter.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.last)), "\n")
	var kept []string
	for _, line := range lines {
		if !strings.Contains(line, "level=info") && !strings.Contains(line, "level=debug") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept[max(0, len(kept)-3):], "; ")
}
