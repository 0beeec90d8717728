//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// measureKeep publishes an image where keep-loaded watches, and measures when its load begins,
// when the engine has it, and how long load-image then takes to find it there; beside docker
// load.
func (b *bench) measureKeep(ctx context.Context) {
	if !b.keep || b.engine == nil {
		return
	}
	dir := must(os.MkdirTemp("", "dcb")) // short: docker's socket is in it
	defer func() { check(os.RemoveAll(dir)) }()
	e := startDocker(dir, b.env, dockerd)
	defer e.stop()
	v := b.makeTarballs(ctx, filepath.Join(dir, "loads"))[0]
	keepLoaded, loadImage := b.build(ctx, "keep-loaded"), b.build(ctx, "load-image")
	rows := []*row{}
	for _, name := range []string{"docker load", "keep-loaded, until the load begins", "keep-loaded, until the engine has the image", "load-image then, which finds it"} {
		rows = append(rows, &row{work: "nothing is there", program: name})
	}
	for range b.repeat {
		rows[0].add(e.load(ctx, client{"docker load", func(v version) []string { return e.arguments("load", "-q", "-i", v.Name()) }}, v))
		e.forget(ctx)
		begins, loaded := b.keepLoaded(ctx, keepLoaded, e, filepath.Join(dir, "watched"), v)
		rows[1].add(&usage{Wall: begins})
		rows[2].add(&usage{Wall: loaded})
		rows[3].add(measured(ctx, b.env, b.loadImage(loadImage, e, filepath.Dir(v.Name()), v)...))
		e.forget(ctx)
	}
	t := &table{title: fmt.Sprintf("(o) What keep-loaded watches: five layers, %.4g MiB", mib(v.Layout.Size())), note: e.version(ctx) + ".\n\n", text: 2,
		head: []string{"what is there", "program", "runs", "wall, s"}}
	t.addRows(rows, wall)
	b.tables = append(b.tables, t)
}

// keepLoaded publishes a tarball in a new directory that keep-loaded watches. It returns how
// long after that its load began, by keep-loaded's own account, and when it had ended.
func (b *bench) keepLoaded(ctx context.Context, program string, e *engine, dir string, v version) (begins, loaded time.Duration) {
	check(os.Mkdir(dir, 0o700))
	defer func() { check(os.RemoveAll(dir)) }()
	cmd := exec.CommandContext(ctx, program, "-dir", dir, "-host", e.socket, "-addr", "127.0.0.1:0",
		"-lock-dir", filepath.Join(b.scratch, "locks"), "-state", filepath.Join(b.scratch, "state.json"))
	cmd.Env, cmd.Stderr = append(os.Environ(), b.env...), os.Stderr
	stdout := must(cmd.StdoutPipe())
	check(cmd.Start())
	defer func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() }()
	lines := bufio.NewReader(stdout)
	address := regexp.MustCompile(`health at (http://[^/]+)/`).FindStringSubmatch(must(lines.ReadString('\n')))
	if address == nil {
		check(fmt.Errorf("%s does not print where its health is", program))
	}
	for strings.Contains(string(get(ctx, address[1]+"/metrics")), "_looks_total 0") { // until it looks at the directory
		check(ctx.Err())
		time.Sleep(time.Millisecond)
	}
	unpublished := filepath.Join(dir, ".unpublished")
	check(os.Link(v.Name(), unpublished))
	begun := time.Now()
	check(os.Chtimes(unpublished, begun, begun))
	check(os.Rename(unpublished, filepath.Join(dir, filepath.Base(v.Name()))))
	line := must(lines.ReadString('\n'))
	loaded = time.Since(begun)
	delay := regexp.MustCompile(`image_delay_seconds\{[^}]*\} (\S+)`).FindSubmatch(get(ctx, address[1]+"/metrics"))
	if !strings.HasPrefix(line, "loaded") || delay == nil {
		check(fmt.Errorf("%s: %s", program, line))
	}
	seconds := must(strconv.ParseFloat(string(delay[1]), 64))
	return time.Duration(seconds * float64(time.Second)), loaded
}
