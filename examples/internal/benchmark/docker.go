//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/dockercache/dockercache/cache/tarball"
)

const dockerd = "dockerd"

// engine is a Docker Engine that the benchmark has started. What its daemons do
// is counted along with the client.
type engine struct {
	daemon
	socket string
	env    []string // of its clients
}

// startDocker starts an engine without a network that keeps everything in dir. A
// program that is not the installed one keeps images in containerd's store.
func startDocker(dir string, env []string, program string, more ...string) *engine {
	dir = filepath.Join(dir, "docker")
	config := filepath.Join(dir, "daemon.json") // keeps the machine's own out
	settings, driver := "{}", "overlay2"
	if program != dockerd {
		settings, driver = `{"features":{"containerd-snapshotter":true}}`, "overlayfs"
	}
	check(os.MkdirAll(dir, 0o700))
	check(os.WriteFile(config, []byte(settings), 0o600))
	socket := "unix://" + dir + "/docker.sock"
	return &engine{startDaemon("API listen on", program, append([]string{
		"--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=" + driver,
		"-H", socket, "--data-root", dir + "/data", "--exec-root", dir + "/exec", "--pidfile", dir + "/pid",
		"--config-file", config,
	}, more...)...), socket, env}
}

// A daemon is a program that runs until it is stopped.
type daemon struct{ cmd *exec.Cmd }

// startDaemon starts a program, and waits until a line of its log has the text ready.
func startDaemon(ready, program string, args ...string) daemon {
	cmd := exec.Command(program, args...)
	// Its own process group: Ctrl-C is for the benchmark, which then stops it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log := must(cmd.StderrPipe())
	check(cmd.Start())
	var seen strings.Builder
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if strings.Contains(lines.Text(), ready) {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return daemon{cmd}
		}
		seen.WriteString(lines.Text() + "\n")
	}
	_ = cmd.Wait() // its log has the reason
	panic(failure{fmt.Errorf("%s ended:\n%s", program, seen.String())})
}

func (d daemon) stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	_ = d.cmd.Wait() // its error is the signal
}

func (e *engine) version(ctx context.Context) string {
	return e.client(ctx, "version", "--format", "engine {{.Server.Version}}, client {{.Client.Version}}")
}

// stop does nothing if e is nil.
func (e *engine) stop() {
	if e != nil {
		e.daemon.stop()
	}
}

func (e *engine) arguments(args ...string) []string {
	return append([]string{"docker", "-H", e.socket}, args...)
}

// client runs docker and returns what it prints; this is not measured.
func (e *engine) client(ctx context.Context, args ...string) string {
	return output(ctx, e.env, e.arguments(args...)...)
}

// measured runs commands one after the other and returns what they and the
// engine's processes used together; Written and Engine apart.
func (e *engine) measured(ctx context.Context, commands ...[]string) *usage {
	daemons := append(childrenOf(e.cmd.Process.Pid), e.cmd.Process.Pid)
	for _, pid := range daemons { // reset the peak, proc_pid_clear_refs(5)
		check(os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0))
	}
	before, total := usageOf(daemons), &usage{}
	for _, args := range commands {
		u := measured(ctx, e.env, args...)
		total.Wall, total.CPU, total.Written = total.Wall+u.Wall, total.CPU+u.CPU, total.Written+u.Written
		total.Peak = max(total.Peak, u.Peak)
	}
	after := usageOf(daemons)
	total.CPU += after.CPU - before.CPU
	total.Engine = after.Written - before.Written
	total.Peak += after.Peak
	return total
}

// pull makes a tarball of an image by docker pull, tag and save.
func (e *engine) pull(ctx context.Context, reference, dir string) *usage {
	wanted := "registry.example/bench/image" + reference[strings.LastIndex(reference, ":"):]
	u := e.measured(ctx, e.arguments("pull", reference), e.arguments("tag", reference, wanted), e.arguments("save", "-o", dir+"/out.tar", wanted))
	e.forget(ctx)
	return u
}

// forget removes all images of the engine, so that the next run finds none.
func (e *engine) forget(ctx context.Context) {
	ids := slices.Compact(slices.Sorted(slices.Values(strings.Fields(e.client(ctx, "image", "ls", "-q", "-a")))))
	if len(ids) > 0 {
		e.client(ctx, append([]string{"image", "rm", "-f"}, ids...)...)
	}
}

var loadWorks = []string{"nothing is there", "the last layer is missing", "it is there already"}

// A version is a tarball to load.
type version struct {
	branch string
	*tarball.Tarball
}

// A client is a program that brings an image from its tarball into an engine.
type client struct {
	name string
	args func(v version) []string
}

// measureLoads loads with all clients in turns, into an engine of its own: an
// engine's images are on a disk, as the tarballs are.
func (b *bench) measureLoads(ctx context.Context) {
	if !b.loads || b.engine == nil {
		return
	}
	dir := must(os.MkdirTemp("", "dcb")) // short: docker's socket is in it
	defer func() { check(os.RemoveAll(dir)) }()
	e := startDocker(dir, b.env, b.loadDockerd)
	defer e.stop()
	versions := b.makeTarballs(ctx, filepath.Join(dir, "loads"))
	program := b.build(ctx, "load-image")
	loadImage := func(v version, flags ...string) []string {
		return b.loadImage(program, e, filepath.Dir(v.Name()), v, flags...)
	}
	clients := []client{
		{"load-image", func(v version) []string { return loadImage(v) }},
		{"docker load", func(v version) []string { return e.arguments("load", "-q", "-i", v.Name()) }},
	}
	if b.loadDockerd != dockerd { // it pulls
		clients = append(clients, client{"load-image -no-pull", func(v version) []string { return loadImage(v, "-no-pull") }})
	}
	var rows []*row
	for _, work := range loadWorks {
		for _, c := range clients {
			rows = append(rows, &row{work: work, program: c.name})
		}
	}
	total := versions[0].Layout.Size()
	for round := range b.repeat {
		for i := range clients {
			i = (round + i) % len(clients) // none is always the first
			warm(warmTimes * total)
			for _, step := range []struct{ work, version int }{{0, 0}, {2, 0}, {1, 1}} {
				rows[step.work*len(clients)+i].add(e.load(ctx, clients[i], versions[step.version]))
			}
			e.forget(ctx)
		}
	}
	t := &table{title: fmt.Sprintf("(e) From a tarball into an engine: five layers, %.4g MiB, the last of them 5 %%", mib(total)), note: e.version(ctx) + ".\n\n", text: 2,
		head: []string{"what is there", "program", "runs", "wall, s", "CPU with the engine's, s", "written by the client, MiB", "by the engine, MiB"}}
	t.addRows(rows, wall, cpu, written, byEngine)
	b.tables = append(b.tables, t)
}

// loadImage is load-image's command for a version of an image that is in dir.
func (b *bench) loadImage(program string, e *engine, dir string, v version, flags ...string) []string {
	args := []string{program, "-quiet", "-host", e.socket, "-lock-dir", filepath.Join(b.scratch, "locks"), "-dir", dir, "-branch", v.branch}
	return slices.Concat(args, flags, []string{v.Image.Reference()})
}

// makeTarballs stocks two versions of an image under one reference, as the
// tarballs of two branches, in a new directory and in others.
func (b *bench) makeTarballs(ctx context.Context, dir string, more ...string) (versions []version) {
	// Random bytes spare the engine much of the work that it has with any client.
	write := b.makeLayer
	if b.ratio > 1 {
		write = b.makeFilesLayer
	}
	base, last := b.makeVersions("load", write, "load-1", "load-2")
	check(os.Mkdir(dir, 0o700))
	for i, branch := range []string{"main", "release"} {
		b.makeTag("load-1", append(slices.Clone(base), last[i])...)
		for _, d := range append([]string{dir}, more...) {
			b.stock(ctx, d, branch, straight, "load-1")
		}
		versions = append(versions, version{branch, must(tarball.Open(filepath.Join(dir, "load_"+branch+".tar")))})
	}
	return versions
}

// load measures a client with the engine's work, and checks that it was done.
func (e *engine) load(ctx context.Context, c client, v version) *usage {
	u := e.measured(ctx, c.args(v))
	var found []struct {
		ID string `json:"Id"`
	}
	check(json.Unmarshal([]byte(e.client(ctx, "image", "inspect", v.Image.Reference())), &found))
	if len(found) != 1 || found[0].ID != v.Image.ConfigDigest().String() && found[0].ID != v.Image.Digest().String() {
		check(fmt.Errorf("%s has not loaded %s: the engine has %v, not %s", c.name, v.Name(), found, v.Image.ConfigDigest()))
	}
	return u
}
