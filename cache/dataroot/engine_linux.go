package dataroot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dockercache/dockercache/cache/loader"
)

// A running is an engine that has been started on a data root.
type running struct {
	engine    loader.Engine // not embedded, which would hide what more it can do
	processes []*process    // in the order in which they were started
}

// A process is a program that has been started.
type process struct {
	program  string
	cmd      *exec.Cmd
	ended    chan struct{} // closed when cmd was waited for
	log      *tail
	limit    time.Duration // for starting, and for stopping
	anyState bool          // of how it ends
}

// command returns what starts an engine with its data root, without a network, on a socket in
// a private directory, and the engine's address.
func (e Engine) command(root, private string) (cmd *exec.Cmd, address string, err error) {
	config := filepath.Join(private, "config") // keeps the machine's own out
	socket := filepath.Join(private, socketName)
	address = "unix://" + socket
	switch e.Kind {
	case Docker, DockerContainerd:
		settings := fmt.Sprintf(`{"features":{"containerd-snapshotter":%t}}`, e.Kind == DockerContainerd)
		args := []string{"--iptables=false", "--ip6tables=false", "--bridge=none", "-H", address, "--data-root", root,
			"--exec-root", filepath.Join(private, "exec"), "--pidfile", filepath.Join(private, "pid"), "--config-file", config,
			"--storage-driver=" + kinds[e.Kind].driver, "--containerd", filepath.Join(private, dockerContainerdPrivate, socketName)}
		return exec.Command(e.program(), args...), address, os.WriteFile(config, []byte(settings), 0o600)
	case Podman:
		return exec.Command(e.program(), "--root", root, "--runroot", filepath.Join(private, "run"), "--storage-driver", kinds[e.Kind].driver,
			"--tmpdir", filepath.Join(private, "tmp"), "--log-level", "info", "system", "service", "--time", "0", address), address, nil
	}
	settings := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = %q\n",
		root, filepath.Join(private, "state"), socket)
	return exec.Command(e.program(), "--config", config), "containerd://" + socket, os.WriteFile(config, []byte(settings), 0o600)
}

// socketName is what the sockets of engines are called in their private directories.
const socketName = "s"

// dockerContainerd is the data root of dockerd's own containerd in that of dockerd (initContainerd of
// Moby's daemon/command, libcontainerd/supervisor), and the private directory of the one that is
// started in its place.
const dockerContainerd, dockerContainerdPrivate = "containerd/daemon", "c"

// start starts the engine. It must be called in [inNamespace], and the engine is stopped
// before that ends.
func (e Engine) start(ctx context.Context, root, private string, limit time.Duration) (_ *running, err error) {
	r := &running{}
	defer func() {
		if err != nil {
			r.kill()
		}
	}()
	if e.Kind == Docker || e.Kind == DockerContainerd {
		// It would start one itself, and look once a second, up to ten times, whether that has ended.
		private := filepath.Join(private, dockerContainerdPrivate)
		if err := os.Mkdir(private, 0o700); err != nil {
			return nil, err
		}
		if _, err := r.startOne(ctx, Engine{Kind: Containerd}, filepath.Join(root, dockerContainerd), private, limit); err != nil {
			return nil, err
		}
	}
	address, err := r.startOne(ctx, e, root, private, limit)
	if err != nil {
		return nil, err
	}
	host, err := loader.ParseHost(address)
	if err != nil {
		return nil, err
	}
	r.engine, err = loader.Open(ctx, host)
	return r, err
}

// ownProc gives a program a /proc of its process namespace, where that can be mounted: containerd 2 looks
// itself up there. A shell does it, since Go can run nothing between clone and exec. Why it could not be mounted is in
// the engine's log.
const ownProc = `mount -t proc proc /proc; exec "$@"`

// startOne starts a program, and waits until it listens. It is the first process of a process
// namespace, so that its children end with it, and it ends with this process, however that ends.
// It has no network but its socket, and its mounts are its own.
func (r *running) startOne(ctx context.Context, e Engine, root, private string, limit time.Duration) (address string, err error) {
	p := &process{program: e.program(), log: &tail{ready: kinds[e.Kind].ready, isReady: make(chan struct{})}, ended: make(chan struct{}), limit: limit,
		anyState: e.Kind == Podman} // it answers a signal with an error
	if p.cmd, address, err = e.command(root, private); err != nil {
		return "", err
	}
	if p.cmd.Err == nil {
		p.cmd.Args = append([]string{"sh", "-c", ownProc, "sh", p.cmd.Path}, p.cmd.Args[1:]...)
		p.cmd.Path = "/bin/sh"
	}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return "", fmt.Errorf("start %s: %w", p.program, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	r.processes = append(r.processes, p)
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case <-p.log.isReady:
		return address, nil
	case <-p.ended:
		return "", fmt.Errorf("%s ended at once: %s", p.program, p.log)
	case <-timeout.C:
		return "", fmt.Errorf("%s does not listen after %v: %s", p.program, limit, p.log)
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// stop stops the engine, which so writes all that it keeps in memory.
func (r *running) stop() error {
	for _, p := range slices.Backward(r.processes) {
		if err := p.stop(); err != nil {
			r.kill()
			return err
		}
	}
	return nil
}

func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timeout := time.NewTimer(p.limit)
	defer timeout.Stop()
	select {
	case <-p.ended:
	case <-timeout.C:
		return fmt.Errorf("%s does not stop after %v: %s", p.program, p.limit, p.log)
	}
	if state := p.cmd.ProcessState; !state.Success() && !p.anyState {
		return fmt.Errorf("%s: %v: %s", p.program, state, p.log)
	}
	return nil
}

func (r *running) kill() {
	for _, p := range slices.Backward(r.processes) {
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
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
