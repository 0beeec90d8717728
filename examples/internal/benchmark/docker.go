//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const dockerd = "dockerd"

// dockerTool is docker pull, tag and save, with an engine of its own. What the
// daemons do is counted along with the client.
type dockerTool struct {
	cmd    *exec.Cmd
	socket string
	env    []string
	says   string
}

// startDocker starts an engine without a network that keeps everything in dir:
// in memory, as the other programs' files. A program that is not the installed one
// keeps images in containerd's store.
func startDocker(ctx context.Context, dir string, env []string, program string) (*dockerTool, error) {
	dir = filepath.Join(dir, "docker")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "daemon.json") // keeps the machine's own out
	settings, driver := "{}", "overlay2"
	if program != dockerd {
		settings, driver = `{"features":{"containerd-snapshotter":true}}`, "overlayfs"
	}
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		return nil, err
	}
	d := &dockerTool{env: env, socket: "unix://" + dir + "/docker.sock"}
	d.cmd = exec.Command(program,
		"--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver="+driver,
		"-H", d.socket, "--data-root", dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid",
		"--config-file", config)
	// Its own process group: Ctrl-C is for the benchmark, which then stops it.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := d.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	var seen strings.Builder
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "API listen on") {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			out, err := d.client(ctx, "version", "--format", "engine {{.Server.Version}}, client {{.Client.Version}}").CombinedOutput()
			if err != nil {
				d.stop()
				return nil, fmt.Errorf("docker version: %w\n%s", err, out)
			}
			d.says = strings.TrimSpace(string(out))
			return d, nil
		}
		seen.WriteString(lines.Text() + "\n")
	}
	_ = d.cmd.Wait() // its log says why
	return nil, fmt.Errorf("dockerd ended:\n%s", seen.String())
}

func (d *dockerTool) stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	_ = d.cmd.Wait()
}

func (d *dockerTool) name() string    { return "docker" }
func (d *dockerTool) version() string { return d.says }

func (d *dockerTool) arguments(args ...string) []string {
	return append([]string{"docker", "-H", d.socket}, args...)
}

func (d *dockerTool) client(ctx context.Context, args ...string) *exec.Cmd {
	args = d.arguments(args...)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), d.env...)
	return cmd
}

func (d *dockerTool) pull(ctx context.Context, w work, host, dir string) (*usage, error) {
	daemons := append(childrenOf(d.cmd.Process.Pid), d.cmd.Process.Pid)
	for _, pid := range daemons {
		if err := resetPeak(pid); err != nil {
			return nil, err
		}
	}
	before, err := d.daemons(daemons)
	if err != nil {
		return nil, err
	}
	ref, wanted := w.reference(host), "registry.example/bench/image:"+w.name
	total := usage{}
	start := time.Now()
	for _, args := range [][]string{{"pull", ref}, {"tag", ref, wanted}, {"save", "-o", dir + "/out.tar", wanted}} {
		u, err := measured(ctx, d.env, d.arguments(args...)...)
		if err != nil {
			return nil, err
		}
		total.CPU += u.CPU
		total.Written += u.Written
		total.Peak = max(total.Peak, u.Peak)
	}
	total.Wall = time.Since(start)
	after, err := d.daemons(daemons)
	if err != nil {
		return nil, err
	}
	total.CPU += after.CPU - before.CPU
	total.Written += after.Written - before.Written
	total.Peak += after.Peak
	// Not counted: the next run shall find nothing.
	if out, err := d.client(ctx, "rmi", ref, wanted).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("docker rmi: %w\n%s", err, out)
	}
	return &total, nil
}

// daemons adds up what the engine's processes have used so far.
func (d *dockerTool) daemons(pids []int) (*usage, error) {
	total := &usage{}
	for _, pid := range pids {
		cpu, err := cpuOf(pid)
		if err != nil {
			return nil, err
		}
		peak, err := peakOf(pid)
		if err != nil {
			return nil, err
		}
		written, err := writtenBy(pid)
		if err != nil {
			return nil, err
		}
		total.CPU, total.Peak, total.Written = total.CPU+cpu, total.Peak+peak, total.Written+written
	}
	return total, nil
}
