//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// slowRate is what each connection gives where some become slow, in bytes per second:
// so little that the registry and not this machine is the limit.
const slowRate = 3_000_000

// slowLinks are those of which one connection is slow, see [link]; the first has
// none. The number is that of a connection for a layer: the first one is for the manifest.
var slowLinks = []struct {
	title string
	link
}{
	{"none", link{}},
	{"at 1/50", link{Slower: 50, Only: 4}},
	{"at 1/200", link{Slower: 200, Only: 4}},
	{"at 1/50 after 2 MiB", link{Slower: 50, Only: 4, After: 2 << 20}},
	{"at 1/200 after 8 MiB", link{Slower: 200, Only: 4, After: 8 << 20}},
}

// measureSlow measures what waits for what is slow: a connection, a mirror, an image.
func (b *bench) measureSlow(ctx context.Context) {
	if !b.slow {
		return
	}
	b.measureSlowConnection(ctx)
	b.measureSlowMirror(ctx)
	b.measureDrip(ctx)
}

// measureSlowConnection pulls one layer over sixteen connections of which one is
// slow. A connection that is opened later is not.
func (b *bench) measureSlowConnection(ctx context.Context) {
	w := b.scaled(single)
	b.makeImage(w)
	t := &table{title: fmt.Sprintf("(f) %d connections of %d MB/s, one of them slow, %s", sixteen, slowRate/1_000_000, w), text: 1,
		head: []string{"the slow one", "runs", "wall, s", "sent by the registry, of the layer"}}
	b.tables = append(b.tables, t)
	rows, sent := make([]*row, len(slowLinks)), make([][]float64, len(slowLinks))
	for i, l := range slowLinks {
		rows[i] = &row{work: "a slow connection", program: l.title}
	}
	for range b.repeat {
		for i, l := range slowLinks {
			l.BytesPerSecond, l.Latency, l.After = slowRate, latency, int64(float64(l.After)*b.scale)
			b.server.open(ctx, "slow", l.link)
			rows[i].add(b.pull(ctx, b.pullOurs(fixed(sixteen)...), w, "slow"))
			sent[i] = append(sent[i], 100*float64(b.server.stats(ctx, "slow", -1).Written)/float64(w.size))
		}
	}
	for i, r := range rows {
		t.add(r.program, fmt.Sprint(len(r.usages)), r.cell(wall, rows[0]), spread(sent[i])+" %")
	}
}

// measureSlowMirror pulls from a mirror whose connections all become slow, new ones
// too, once it has sent 30 % of the image. The own registry is not.
func (b *bench) measureSlowMirror(ctx context.Context) {
	w := b.scaled(single)
	b.makeImage(w)
	const divisor = 50
	t := &table{title: fmt.Sprintf("(g) A mirror that falls to 1/%d after 30 %%, %d connections of %d MB/s, %s", divisor, sixteen, slowRate/1_000_000, w), text: 1,
		head: []string{"sources", "runs", "wall, s", "sent by the mirror, MiB", "by the own registry, MiB"}}
	b.tables = append(b.tables, t)
	good := link{BytesPerSecond: slowRate, Latency: latency}
	falls := good
	falls.Slower, falls.After = divisor, w.size*3/10
	cases := []struct {
		title  string
		mirror bool
		flags  []string
	}{
		{"the own registry alone", false, nil},
		{"mirror, own registry", true, nil},
		{"the same with `-all-sources`", true, []string{"-all-sources"}},
	}
	rows, sent := make([]*row, len(cases)), make([][2][]float64, len(cases))
	for i, c := range cases {
		rows[i] = &row{work: "a slow mirror", program: c.title}
	}
	for range b.repeat {
		for i, c := range cases {
			b.server.open(ctx, "mirror", falls)
			b.server.open(ctx, "own", good)
			flags := append(fixed(sixteen), c.flags...)
			if c.mirror {
				flags = append(flags, "-mirror", b.server.repository("mirror"))
			}
			rows[i].add(b.pull(ctx, b.pullOurs(flags...), w, "own"))
			for j, name := range []string{"mirror", "own"} {
				sent[i][j] = append(sent[i][j], mib(b.server.stats(ctx, name, -1).Written))
			}
		}
	}
	for i, r := range rows {
		t.add(r.program, fmt.Sprint(len(r.usages)), r.cell(wall, rows[0]), spread(sent[i][0]), spread(sent[i][1]))
	}
}

// measureDrip stocks an image alone, and in one run with another one of whose
// layer a byte a second comes on each connection. That one is not waited for.
func (b *bench) measureDrip(ctx context.Context) {
	drips := b.scaled(dripped)
	b.makeImage(drips)
	t := &table{title: "(h) An image that drips beside a healthy one, (b)", text: 2,
		head: []string{"healthy image", "connections", "runs", "alone, s", "beside the other, s"}}
	b.tables = append(b.tables, t)
	for _, c := range []struct {
		work
		connections string
		flags       []string
	}{
		{b.scaled(single), fmt.Sprint(sixteen), fixed(sixteen)},
		{b.scaled(single), "default", nil},
		{b.work("giant"), fmt.Sprint(sixteen), fixed(sixteen)},
	} {
		b.makeImage(c.work)
		healthy := b.server.reference(limited, c.name)
		var alone, beside []float64
		late := 0
		for range b.repeat {
			took, _ := b.stockFirst(ctx, c.flags, time.Minute, c.work, healthy)
			alone = append(alone, took.Seconds())
			b.server.open(ctx, "drips", link{Drip: true})
			took, ok := b.stockFirst(ctx, c.flags, 10*took+5*time.Second, c.work, healthy, b.server.reference("drips", drips.name))
			beside = append(beside, took.Seconds())
			if !ok {
				late++
			}
		}
		cell := fmt.Sprintf("%s **%.3g×**", spread(beside), median(beside)/median(alone))
		if late > 0 {
			cell = fmt.Sprintf("%d of %d not in %s", late, b.repeat, short(slices.Max(beside)))
		}
		t.add(c.work.String(), c.connections, fmt.Sprint(b.repeat), spread(alone), cell)
	}
}

// stockFirst starts docker-cache with one or two references and returns how long
// the first of them takes, and whether it is there in the time allowed. Then the run
// is killed.
func (b *bench) stockFirst(ctx context.Context, flags []string, allowed time.Duration, w work, first string, others ...string) (took time.Duration, ok bool) {
	dir, remove := b.directory()
	defer remove()
	warm(warmTimes * int64(w.layers) * w.size)
	cmd := b.cacheCommand(ctx, dir, "main", append(others, first)...)
	cmd.Args = slices.Insert(cmd.Args, 1, flags...)
	stdout := must(cmd.StdoutPipe())
	start := time.Now()
	check(cmd.Start())
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }() // its error is the kill
	defer time.AfterFunc(allowed, func() { _ = cmd.Process.Kill() }).Stop()
	for d := json.NewDecoder(stdout); !ok; {
		var r record
		if err := d.Decode(&r); err != nil {
			break // it was killed, or failed
		}
		if r.Image == first && r.Outcome != "stocked" {
			check(fmt.Errorf("want %s stocked, it is %s", first, r.Outcome))
		}
		ok = r.Image == first
	}
	took = time.Since(start)
	fmt.Fprintf(os.Stderr, "%s, %d others: %.2f s\n", w, len(others), took.Seconds())
	if ok {
		checkTarball(dir, w)
	}
	return took, ok
}
