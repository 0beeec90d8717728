//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// connectionLinks are limits that another number of connections is best for.
var connectionLinks = []struct {
	title string
	link
}{
	{fmt.Sprintf("each connection gives %d MB/s", connectionRate/1_000_000), link{BytesPerSecond: connectionRate, Latency: latency}},
	{"the registry gives 100 MB/s in all", link{TotalBytesPerSecond: 100_000_000, Latency: latency}},
	{"no limit but this machine", link{}},
	{fmt.Sprintf("%d requests a second", allowedRate), link{RequestsPerSecond: allowedRate, Latency: latency}},
}

// measureConnections pulls the giant layer with as many connections as docker-cache
// thinks best, and with fixed numbers of them, in turns.
func (b *bench) measureConnections(ctx context.Context) {
	if len(b.connections) == 0 {
		return
	}
	w := b.work("giant")
	b.makeImage(w)
	t := &table{title: fmt.Sprintf("(j) The number of connections, wall, s, %s", w), text: 1, head: []string{"limit", "runs", "default"}}
	for _, n := range b.connections {
		t.head = append(t.head, fmt.Sprint(n))
	}
	t.head = append(t.head, "default, of the best")
	b.tables = append(b.tables, t)
	for i, l := range connectionLinks {
		rows, failed := b.pullWithEach(ctx, w, l.title, l.link)
		t.add(append([]string{l.title, fmt.Sprint(b.repeat)}, connectionCells(rows, failed)...)...)
		for j, n := range b.connections {
			if r := rows[j+1]; i == 0 && n == sixteen && len(r.usages) > 0 {
				b.count(fmt.Sprintf("(b) one giant layer, `-connections %d`", n), "%s of connections × limit", percentOf(int64(n)*connectionRate, w, r))
			}
		}
	}
}

// pullWithEach pulls a work over a link with the default number of connections, which is
// the first row, and with each of the fixed numbers, in turns. It also returns how many
// runs of each row failed.
func (b *bench) pullWithEach(ctx context.Context, w work, title string, l link) (rows []*row, failed []int) {
	rows = []*row{{work: title, program: "default"}}
	flags := [][]string{nil}
	for _, n := range b.connections {
		rows = append(rows, &row{work: title, program: fmt.Sprint(n)})
		flags = append(flags, fixed(n))
	}
	failed = make([]int, len(rows))
	for round := range b.repeat {
		for i := range rows {
			i = (round + i) % len(rows) // none is always the first
			b.server.open(ctx, "counted", l)
			err := catch(func() { rows[i].add(b.pull(ctx, b.pullOurs(flags[i]...), w, "counted")) })
			check(ctx.Err())
			if err != nil {
				failed[i]++
				fmt.Fprintf(os.Stderr, "%s, %s: %v\n", title, rows[i].program, err)
			}
		}
	}
	return rows, failed
}

// connectionCells are the times of rows, and the ratio of the first one to the best of
// the others. Runs that failed are counted.
func connectionCells(rows []*row, failed []int) (cells []string) {
	var best *row
	for i, r := range rows {
		var parts []string
		if len(r.usages) > 0 {
			parts = append(parts, spread(r.values(wall)))
			if i > 0 && (best == nil || median(r.values(wall)) < median(best.values(wall))) {
				best = r
			}
		}
		if failed[i] > 0 {
			parts = append(parts, fmt.Sprintf("failed: %d", failed[i]))
		}
		cells = append(cells, strings.Join(parts, ", "))
	}
	if best == nil || len(rows[0].usages) == 0 {
		return append(cells, "–")
	}
	return append(cells, fmt.Sprintf("**%.3g×** (%s)", median(rows[0].values(wall))/median(best.values(wall)), best.program))
}
