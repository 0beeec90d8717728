//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// measureRoots measures how long it takes until an engine of its own has an image: an engine
// on a clone of a template, beside docker load into an engine that runs.
func (b *bench) measureRoots(ctx context.Context) {
	if !b.roots || b.engine == nil || os.Geteuid() != 0 {
		return
	}
	t := &table{title: "(l) An engine with the image: docker load into one that runs, or one that is started on a clone", text: 2,
		head: []string{"work, file system", "program", "runs", "wall, s", "newly allocated, MiB"}}
	b.tables = append(b.tables, t)
	program := b.build(ctx, "engine-root")
	base, last := b.makeVersions("root", b.makeLayer, "root-1", "root-2")
	large := b.makeLayer("root-large", 4*b.work("giant").size)
	for _, system := range []string{"xfs", "btrfs"} {
		if _, err := exec.LookPath("mkfs." + system); err != nil {
			fmt.Fprintf(os.Stderr, "%s is left out: %v\n", system, err)
			continue
		}
		r := b.mountRoots(ctx, program, system)
		b.makeTag("root-1", append(slices.Clone(base), last[0])...)
		r.stock("root-1")
		size := 20 * last[0].Size
		r.clones(t, "root-1", size, "", b.repeat)
		r.refresh(t, append(slices.Clone(base), last[1]))
		if system == "xfs" {
			r.empty()
			b.makeTag("files-1", b.makeFilesLayer("root-files", b.work("giant").size))
			r.stock("files-1")
			r.clones(t, "files-1", b.work("giant").size, " of files", 1)
			b.removeImage(work{name: "files-1"}) // memory is short for what comes next
			r.empty()
			b.makeTag("large-1", large)
			r.stock("large-1")
			r.clones(t, "large-1", large.Size, "", 1)
		}
		r.close()
	}
}

// roots are tarballs and templates on a file system of their own, in memory.
type roots struct {
	*bench
	ctx                    context.Context
	program, system, image string // the image of the file system
	at, cache, work        string
}

func (b *bench) mountRoots(ctx context.Context, program, system string) *roots {
	r := &roots{bench: b, ctx: ctx, program: program, system: system, image: filepath.Join(b.scratch, "image"), at: filepath.Join(b.scratch, "mounted")}
	check(os.WriteFile(r.image, nil, 0o600))
	check(os.Truncate(r.image, 64<<30))
	check(os.Mkdir(r.at, 0o755))
	output(ctx, nil, "mkfs."+system, "-q", r.image)
	output(ctx, nil, "mount", "-o", "loop,discard", r.image, r.at)
	r.cache, r.work = filepath.Join(r.at, "cache"), must(os.MkdirTemp("", "dcb"))
	check(os.Mkdir(r.cache, 0o755))
	return r
}

func (r *roots) close() {
	check(unix.Unmount(r.at, 0))
	check(os.Remove(r.at))
	check(os.Remove(r.image))
	check(os.RemoveAll(r.work))
}

func (r *roots) empty() {
	check(os.RemoveAll(r.cache))
	check(os.Mkdir(r.cache, 0o755))
}

func (r *roots) stock(tag string) { r.bench.stock(r.ctx, r.cache, "main", straight, tag) }

// reference is what an engine knows the image of a tag by.
func (r *roots) reference(tag string) string {
	return r.server.reference(straight, tag)
}

func (r *roots) run(args ...string) string {
	return output(r.ctx, r.env, append([]string{r.program, args[0], "-dir", r.cache}, args[1:]...)...)
}

// tarball is the path of a tag's.
func (r *roots) tarball(tag string) string {
	return filepath.Join(r.cache, tag[:len(tag)-len("-1")]+"_main.tar")
}

// clones measures loads and clones of an image of a size and kind, in turns.
func (r *roots) clones(t *table, tag string, size int64, kind string, loads int) {
	r.run("build", r.reference(tag))
	load := &row{work: fmt.Sprintf("%.4g MiB%s, %s", mib(size), kind, r.system), program: "docker load"}
	clone := &row{work: load.work, program: "engine-root clone, and dockerd"}
	// As packages of Docker's do: the machine's containerd runs already.
	beside := &row{work: load.work, program: "the same, and a containerd that runs"}
	containerd, stop := r.startContainerd()
	defer stop()
	for i := range max(r.repeat, loads) {
		if i < loads {
			load.add(r.load(tag))
		}
		clone.add(r.start(tag))
		beside.add(r.start(tag, "--containerd", containerd))
	}
	t.addRows([]*row{load, clone, beside}, wall, written)
}

// startContainerd starts a containerd, which dockerd needs for containers only, and returns its socket.
func (r *roots) startContainerd() (socket string, stop func()) {
	dir := must(os.MkdirTemp(r.work, "c"))
	socket = filepath.Join(dir, "s.sock")
	config := filepath.Join(dir, "config.toml") // keeps the machine's own out
	check(os.WriteFile(config, []byte("version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"), 0o600))
	d := startDaemon("containerd successfully booted", "containerd",
		"--config", config, "--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"), "--address", socket)
	return socket, d.stop
}

// load loads the image into an engine that runs and has nothing.
func (r *roots) load(tag string) *usage {
	dir := must(os.MkdirTemp(r.work, "e"))
	data := filepath.Join(dir, "docker", "data") // on the same file system
	check(os.MkdirAll(filepath.Dir(data), 0o700))
	check(os.Mkdir(filepath.Join(r.at, "data"), 0o700))
	check(os.Symlink(filepath.Join(r.at, "data"), data))
	defer func() { check(os.RemoveAll(filepath.Join(r.at, "data"))) }()
	e := startDocker(dir, r.env, dockerd)
	defer e.stop()
	used := usedOf(r.at)
	warm(warmTimes * must(os.Stat(r.tarball(tag))).Size())
	begun := time.Now()
	e.client(r.ctx, "load", "-q", "-i", r.tarball(tag))
	u := &usage{Wall: time.Since(begun)}
	u.Written = usedOf(r.at) - used
	return u
}

// start clones, starts an engine on the clone, and waits until it shows the image.
func (r *roots) start(tag string, more ...string) *usage {
	dir := must(os.MkdirTemp(r.work, "e"))
	data := filepath.Join(dir, "docker", "data")
	check(os.MkdirAll(data, 0o700))
	used := usedOf(r.at)
	begun := time.Now()
	r.run("clone", "-no-copy", "-mount", data, r.reference(tag))
	u := &usage{Written: usedOf(r.at) - used}
	flushed := time.Now()
	e := startDocker(dir, r.env, dockerd, more...)
	e.client(r.ctx, "image", "inspect", r.reference(tag))
	u.Wall = time.Since(flushed) + flushed.Sub(begun)
	e.stop()
	output(r.ctx, r.env, r.program, "discard", data)
	return u
}

// refresh measures a delta into an engine that runs, and into a template.
func (r *roots) refresh(t *table, layers []layer) {
	data := filepath.Join(r.work, "d")
	check(os.MkdirAll(filepath.Join(data, "docker", "data"), 0o700))
	r.run("clone", "-no-copy", "-mount", filepath.Join(data, "docker", "data"), r.reference("root-1"))
	e := startDocker(data, r.env, dockerd)
	r.makeTag("root-1", layers...)
	r.stock("root-1")
	delta := &row{work: "one layer of five is new, " + r.system, program: "load-image"}
	loadImage := r.build(r.ctx, "load-image")
	begun := time.Now()
	output(r.ctx, r.env, loadImage, "-quiet", "-host", e.socket, "-lock-dir", filepath.Join(r.scratch, "locks"), "-dir", r.cache, r.reference("root-1"))
	delta.add(&usage{Wall: time.Since(begun)})
	e.stop()
	output(r.ctx, r.env, r.program, "discard", filepath.Join(data, "docker", "data"))
	refresh := &row{work: delta.work, program: "engine-root refresh"}
	used := usedOf(r.at)
	begun = time.Now()
	r.run("refresh")
	refresh.add(&usage{Wall: time.Since(begun), Written: usedOf(r.at) - used})
	t.addRows([]*row{delta, refresh}, wall, written)
}
