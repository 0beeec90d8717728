//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/dockercache/dockercache/registry/registrytest"
)

// A proxy stands before the server of S3. What it sends to clients is limited as what the
// registry sends in (b), by connection, and counted; what clients send is not limited.
type proxy struct {
	*registrytest.Throttle
	to string // HOST:PORT
}

// startProxy starts a proxy. Close it in the end.
func startProxy(to string, l link) *proxy {
	p := &proxy{&registrytest.Throttle{Listener: must(net.Listen("tcp", "127.0.0.1:0")), BytesPerSecond: l.BytesPerSecond, Latency: l.Latency}, to}
	go func() {
		for {
			conn, err := p.Accept()
			if err != nil { // it was closed
				return
			}
			go p.serve(conn)
		}
	}()
	return p
}

// serve serves a connection to its end.
func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		return // the client sees it
	}
	defer server.Close()
	var all sync.WaitGroup
	all.Go(func() {
		_, _ = io.Copy(server, struct{ io.Reader }{client})
		_ = server.Close()
	})
	// Not by the kernel: a call that waits for a full piece lasts into the next answer, and
	// that one would come without its latency.
	_, _ = io.CopyBuffer(struct{ io.Writer }{client}, struct{ io.Reader }{server}, make([]byte, 64<<10))
	_ = client.Close()
	all.Wait()
}

// measureBucketKill is measureKill into the bucket. What counts is what the registry sends.
func (b *bench) measureBucketKill(ctx context.Context, g *gateway) {
	if !b.kill {
		return
	}
	w := b.work("giant")
	var sent, at, twice []float64
	for range b.repeat {
		before, again := b.killed(ctx, bucketDir, w)
		checkTarball(filepath.Join(g.data, bucketName, bucketPrefix), w)
		g.empty()
		percent := func(n int64) float64 { return 100 * float64(n) / float64(w.size) }
		sent, at, twice = append(sent, percent(again.Written)), append(at, percent(before)), append(twice, mib(before+again.Written-w.size))
		fmt.Fprintf(os.Stderr, "killed at %.1f %%, run again: %.1f %%\n", percent(before), percent(again.Written))
	}
	b.count(fmt.Sprintf("(k) one giant layer, SIGKILL at 90 %%, run again: sent by the registry, %d runs", b.repeat),
		"%s %%; killed at %s %%, so %s MiB came twice", spread(sent), spread(at), spread(twice))
}

func bySender(total int64) column {
	return func(u *usage) float64 { return 100 * float64(u.Sent) / float64(total) }
}

// measureBucketLoads loads from the bucket, over limited connections, beside one request
// for the object whose answer docker load reads. That load-image loads the same from a directory
// shows how much of the time is the engine's.
func (b *bench) measureBucketLoads(ctx context.Context, g *gateway) {
	if b.engine == nil {
		return
	}
	defer g.empty()
	dir := must(os.MkdirTemp("", "dcb")) // short: docker's socket is in it
	defer func() { check(os.RemoveAll(dir)) }()
	versions := b.makeTarballs(ctx, filepath.Join(dir, "loads"), bucketDir)
	p := startProxy(g.address, link{BytesPerSecond: connectionRate, Latency: latency})
	defer p.Close()
	e := startDocker(dir, slices.Concat(b.env, g.env(p.Addr().String())), b.loadDockerd)
	defer e.stop()
	program := b.build(ctx, "load-image")
	clients := []client{
		{"load-image, from the bucket", func(v version) []string { return b.loadImage(program, e, bucketDir, v) }},
		{"one GET, into docker load", func(v version) []string {
			get := []string{os.Args[0], getCommand, bucketPrefix + "/" + filepath.Base(v.Name())}
			return append([]string{"sh", "-c", `"$1" "$2" "$3" | (shift 3 && "$@")`, "sh"}, append(get, e.arguments("load", "-q")...)...)
		}},
		{"load-image, from a directory", func(v version) []string { return b.loadImage(program, e, filepath.Dir(v.Name()), v) }},
	}
	var rows []*row
	for _, work := range loadWorks[:2] {
		for _, c := range clients {
			rows = append(rows, &row{work: work, program: c.name})
		}
	}
	total := versions[0].Layout.Size()
	for round := range b.repeat {
		for i := range clients {
			i = (round + i) % len(clients) // none is always the first
			warm(warmTimes * total)
			for step, v := range versions {
				before := p.Written()
				u := e.load(ctx, clients[i], v)
				u.Sent = p.Written() - before
				rows[step*len(clients)+i].add(u)
			}
			e.forget(ctx)
		}
	}
	t := &table{title: fmt.Sprintf("(k) Out of the bucket into an engine, %d MB/s per connection, %d ms latency: five layers, %.4g MiB, the last of them 5 %%",
		connectionRate/1_000_000, latency.Milliseconds(), mib(total)), note: e.version(ctx) + ".\n\n", text: 2,
		head: []string{"what is there", "program", "runs", "wall, s", "CPU with the engine's, s", "sent by the bucket, of the image, %"}}
	t.addRows(rows, wall, cpu, bySender(total))
	b.tables = append(b.tables, t)
}
