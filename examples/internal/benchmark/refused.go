//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// allowedRate is how many requests a second the registry serves that refuses those
// which come too fast.
const allowedRate = 3

// attempts are the runs of a program of which some may fail.
type attempts struct {
	row
	pull              puller
	runs, failed      int
	requests, refused []float64
}

// measureRefused pulls from a registry that refuses requests which come too fast,
// with all programs but docker, in turns. Each run finds as many requests allowed
// as come at once after a pause.
func (b *bench) measureRefused(ctx context.Context) {
	if b.refused == 0 {
		return
	}
	t := &table{title: fmt.Sprintf("(i) A registry that allows %d requests a second, %d ms latency", allowedRate, latency.Milliseconds()), text: 2,
		head: []string{"work", "program", "runs", "succeeded", "wall, s", "requests", "refused"}}
	b.tables = append(b.tables, t)
	for _, w := range []work{b.scaled(few), b.scaled(single)} {
		b.makeImage(w)
		var all []*attempts
		for _, t := range b.everyTool() {
			if t.name != "docker" {
				all = append(all, &attempts{row: row{work: w.String(), program: t.name}, pull: t.pull})
			}
		}
		for round := range b.refused {
			for _, a := range all {
				if a.program == ours || round%max(b.refused/b.repeat, 1) == 0 {
					b.attempt(ctx, a, w)
				}
			}
		}
		b.addAttempts(t, w, all)
	}
}

// attempt has a program pull a work over a link of its own, and records what came of it.
func (b *bench) attempt(ctx context.Context, a *attempts, w work) {
	b.server.open(ctx, "refuses", link{RequestsPerSecond: allowedRate, Latency: latency})
	if a.program == "regctl" {
		b.plainHTTP(ctx, "refuses")
	}
	a.runs++
	start := time.Now()
	err := catch(func() { a.add(b.pull(ctx, a.pull, w, "refuses")) })
	check(ctx.Err())
	if err != nil {
		a.failed++
		fmt.Fprintf(os.Stderr, "%s, %s: failed after %.2f s: %v\n", a.work, a.program, time.Since(start).Seconds(), err)
	}
	s := b.server.stats(ctx, "refuses", -1)
	a.requests, a.refused = append(a.requests, float64(s.requests())), append(a.refused, float64(s.Refused))
}

// addAttempts adds a row for each program; ratios are to the first if it ever
// succeeded. The fastest other one is in the counts.
func (b *bench) addAttempts(t *table, w work, all []*attempts) {
	var fastest *attempts
	for i, a := range all {
		times := "–"
		if len(a.usages) > 0 {
			times = spread(a.values(wall))
			if len(all[0].usages) > 0 {
				times = a.cell(wall, &all[0].row)
			}
			if i > 0 && (fastest == nil || median(a.values(wall)) < median(fastest.values(wall))) {
				fastest = a
			}
		}
		t.add(a.work, a.program, fmt.Sprint(a.runs), fmt.Sprint(a.runs-a.failed), times, spread(a.requests), spread(a.refused))
	}
	if fastest != nil && len(all[0].usages) > 0 {
		b.count("(i) "+w.String()+": time, to the fastest other program", "%.2f× (%s); %d of %d succeeded",
			median(all[0].values(wall))/median(fastest.values(wall)), fastest.program, all[0].runs-all[0].failed, all[0].runs)
	}
}
