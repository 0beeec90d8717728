//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// clientsAtOnce is how many nodes of a cluster ask for an image at the same time.
const clientsAtOnce = 13

// measureFill has one client, and many at once, take an image from serve-cache that it does
// not have, in turns. They are on the same processors, and so do as little as they can.
func (b *bench) measureFill(ctx context.Context) {
	if !b.fill {
		return
	}
	t := &table{title: "(n) An image that serve-cache does not have, over connections of (b)", text: 2,
		head: []string{"work", "clients", "runs", "the last has it, s", "CPU of serve-cache, s", "sent by the registry, of the image"}}
	b.tables = append(b.tables, t)
	program := b.build(ctx, "serve-cache")
	for _, name := range []string{"giant", "big"} {
		w := b.work(name)
		b.makeImage(w)
		one, all := &row{work: w.String(), program: "1"}, &row{work: w.String(), program: fmt.Sprint(clientsAtOnce)}
		// What these processors need to move as many bytes, with nothing to fetch or to verify.
		floor := &row{work: w.String(), program: fmt.Sprint(clientsAtOnce, ", from a registry that has the image")}
		for range b.repeat {
			one.add(b.fillFor(ctx, program, w, 1))
			all.add(b.fillFor(ctx, program, w, clientsAtOnce))
			begun := time.Now()
			takeAtOnce(b.server.hosts[straight], "/v2/"+repositoryName, w.name, clientsAtOnce)
			floor.add(&usage{Wall: time.Since(begun)})
		}
		size := float64(int64(w.layers) * w.size)
		sent := func(u *usage) float64 { return float64(u.Sent) / size }
		for _, r := range []*row{one, all} {
			t.add(r.work, r.program, fmt.Sprint(len(r.usages)), r.cell(wall, one), r.cell(cpu, one), spread(r.values(sent))+"×")
		}
		t.add(floor.work, floor.program, fmt.Sprint(len(floor.usages)), floor.cell(wall, one), "", "")
	}
}

// fillFor starts serve-cache on an empty directory and has clients take an image from it.
func (b *bench) fillFor(ctx context.Context, program string, w work, clients int) *usage {
	dir, remove := b.directory()
	defer remove()
	warm(warmTimes * int64(w.layers) * w.size)
	repository := b.server.repository(limited)
	cmd := exec.CommandContext(ctx, program, "-dir", dir, "-addr", "127.0.0.1:0", "-fill", repository)
	cmd.Env, cmd.Stderr = append(os.Environ(), b.env...), os.Stderr
	stdout := must(cmd.StdoutPipe())
	check(cmd.Start())
	defer func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() }()
	line := must(bufio.NewReader(stdout).ReadString('\n'))
	at := regexp.MustCompile(` at http://(\S+)`).FindStringSubmatch(line)
	if at == nil {
		check(fmt.Errorf("%s: %q has no address", program, line))
	}
	before := b.server.stats(ctx, limited, -1)
	begun := time.Now()
	takeAtOnce(at[1], "/v2/"+repository, w.name, clients)
	return &usage{Wall: time.Since(begun), CPU: cpuOf(cmd.Process.Pid), Sent: b.server.stats(ctx, limited, -1).since(before).Written}
}

// takeAtOnce has clients take an image.
func takeAtOnce(host, path, tag string, clients int) {
	var group errgroup.Group
	for range clients {
		group.Go(func() error { return catch(func() { takeImage(host, path, tag) }) })
	}
	check(group.Wait())
}

// layersAtOnce is how many layers of an image a client takes at a time: Docker's and
// containerd's default.
const layersAtOnce = 3

// takeImage takes the manifest of an image and all its blobs, and drops them.
func takeImage(host, path, tag string) {
	manifest := must(v1.ParseManifest(bytes.NewReader(get(context.Background(), "http://"+host+path+"/manifests/"+tag))))
	var group errgroup.Group
	group.SetLimit(layersAtOnce)
	for _, d := range append(manifest.Layers, manifest.Config) {
		group.Go(func() error { return drop(host, path+"/blobs/"+d.Digest.String(), d.Size) })
	}
	check(group.Wait())
}

// drop gets what is at a path and drops it in the kernel: MSG_TRUNC, tcp(7). Clients are
// other machines, whose work is not to be counted.
func drop(host, path string, size int64) error {
	conn, err := net.Dial("tcp", host)
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host) // what cannot be written is not answered
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || resp.ContentLength != size {
		return fmt.Errorf("%s: %s, %d bytes, want %d", path, resp.Status, resp.ContentLength, size)
	}
	left := size - int64(r.Buffered())
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20) // is not written to
	for left > 0 && err == nil {
		var n int
		waited := raw.Read(func(fd uintptr) bool {
			n, _, err = unix.Recvfrom(int(fd), buf[:min(left, int64(len(buf)))], unix.MSG_TRUNC)
			return err != unix.EAGAIN
		})
		err = errors.Join(err, waited)
		if n == 0 && err == nil {
			err = io.ErrUnexpectedEOF
		}
		left -= int64(n)
	}
	return err
}
