//go:build linux

package main

import (
	"fmt"
	"io"
)

// loadColumns are those of the table of loads.
var loadColumns = []func(u *usage) float64{
	func(u *usage) float64 { return u.Wall.Seconds() },
	func(u *usage) float64 { return u.CPU.Seconds() },
	func(u *usage) float64 { return mib(u.Written) },
	func(u *usage) float64 { return mib(u.Daemon) },
}

func (r *loadRow) values(column int) []float64 { return sortedBy(r.usages, loadColumns[column]) }

func (r *loadRow) median(column int) float64 { return middle(r.values(column)) }

// printLoads writes the table of loads; ratios are to load-image.
func (b *bench) printLoads(w io.Writer) {
	if b.loads == nil {
		return
	}
	fmt.Fprintf(w, "\n### (e) From a tarball into an engine: five layers, %.4g MiB, the last of them 5 %%\n\n%s.\n\n", mib(b.loads.total), b.loads.engine)
	fmt.Fprint(w, "| what is there | program | runs | wall, s | CPU with the engine's, s | written by the client, MiB | by the engine, MiB |\n|---|---|--:|--:|--:|--:|--:|\n")
	for _, r := range b.loads.rows {
		mine := b.loads.find(r.work, ourLoad)
		fmt.Fprintf(w, "| %s | %s | %d |", r.work, r.tool, len(r.usages))
		for column := range loadColumns {
			fmt.Fprintf(w, " %s |", cellOf(r.values(column), mine.median(column), r == mine))
		}
		fmt.Fprintln(w)
	}
}

// bars of the loads.
func (l *loads) bars() []bar {
	const wall, written = 0, 3
	ratio := func(work string) float64 {
		return l.find(work, dockerLoad).median(wall) / l.find(work, ourLoad).median(wall)
	}
	there, slowest := l.find(presentWork, ourLoad).values(wall), 0.0
	for _, v := range there {
		slowest = max(slowest, v)
	}
	present, delta, cold := ratio(presentWork), ratio(deltaWork), 1/ratio(coldWork)
	return []bar{
		{"(e) load, already there: under 0.2 s", fmt.Sprintf("%.3f s at most", slowest), slowest < 0.2},
		{"(e) load, already there: at least 50× faster than docker load", fmt.Sprintf("%.0f×", present), present >= 50},
		{"(e) load, one layer of five missing (5 %): at least 5× faster than docker load", fmt.Sprintf("%.1f×", delta), delta >= 5},
		{"(e) load, cold: at most 1.05× of docker load", fmt.Sprintf("%.2f×", cold), cold <= 1.05},
		{"(e) load, cold: the goal of at most 0.7× of docker load", fmt.Sprintf("%.2f×", cold), cold <= 0.7},
		{"(e) load, cold: the engine writes no more than for docker load", fmt.Sprintf("%.0f MiB, %.0f MiB", l.find(coldWork, ourLoad).median(written), l.find(coldWork, dockerLoad).median(written)),
			l.find(coldWork, ourLoad).median(written) <= 1.01*l.find(coldWork, dockerLoad).median(written)},
	}
}
