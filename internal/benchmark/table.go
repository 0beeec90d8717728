//go:build linux

package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
)

// columns of the tables: what is measured, in which unit.
var columns = []struct {
	title string
	value func(u *usage) float64
}{
	{"wall, s", func(u *usage) float64 { return u.Wall.Seconds() }},
	{"CPU, s", func(u *usage) float64 { return u.CPU.Seconds() }},
	{"peak memory, MiB", func(u *usage) float64 { return float64(u.Peak) / (1 << 20) }},
	{"written, MiB", func(u *usage) float64 { return float64(u.Written) / (1 << 20) }},
}

const (
	wall = iota
	cpu
	peak
)

// values returns a column of a row, sorted.
func (r *row) values(column int) []float64 {
	var all []float64
	for _, u := range r.usages {
		all = append(all, columns[column].value(u))
	}
	slices.Sort(all)
	return all
}

func (r *row) median(column int) float64 {
	all := r.values(column)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// cell is the median, its ratio to ours, and the spread if there is one.
func (r *row) cell(column int, ours *row) string {
	all := r.values(column)
	text := short(r.median(column))
	if len(all) > 1 {
		text += fmt.Sprintf(" (%s–%s)", short(all[0]), short(all[len(all)-1]))
	}
	if r != ours {
		text += fmt.Sprintf(" **%.3g×**", r.median(column)/ours.median(column))
	}
	return text
}

// short is a number with three digits, and never with an exponent.
func short(v float64) string {
	if v >= 999.5 { // %.3g would say 1e+03
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// find returns the row, or nil if it was not measured.
func (b *bench) find(work, link, tool string) *row {
	for _, r := range b.rows {
		if r.work.name == work && r.link == link && r.tool == tool && len(r.usages) > 0 {
			return r
		}
	}
	return nil
}

// print writes everything in Markdown.
func (b *bench) print(w io.Writer) {
	fmt.Fprintf(w, "%d CPUs, %s, %s/%s.", runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, t := range b.tools[1:] {
		fmt.Fprintf(w, " %s: %s.", t.name(), t.version())
	}
	fmt.Fprint(w, "\n")
	titles := map[string]string{
		straight: "(a) Straight from loopback",
		limited:  fmt.Sprintf("(b) %d MB/s per connection, %d ms latency", limitedRate/1_000_000, limitedLatency.Milliseconds()),
	}
	for _, link := range []string{straight, limited} {
		if !slices.Contains(b.options.links, link) {
			continue
		}
		fmt.Fprintf(w, "\n### %s\n\n| work | program | runs |", titles[link])
		for _, c := range columns {
			fmt.Fprintf(w, " %s |", c.title)
		}
		fmt.Fprint(w, "\n|---|---|--:|--:|--:|--:|--:|\n")
		for _, r := range b.rows {
			base := b.find(r.work.name, link, ours)
			if r.link != link || len(r.usages) == 0 {
				continue
			}
			fmt.Fprintf(w, "| %s | %s | %d |", r.work, r.tool, len(r.usages))
			for i := range columns {
				fmt.Fprintf(w, " %s |", r.cell(i, base))
			}
			fmt.Fprint(w, "\n")
		}
	}
	b.printSources(w)
	b.printRefresh(w)
	fmt.Fprint(w, "\n### The bars\n\n| bar | reached | |\n|---|---|---|\n")
	for _, bar := range b.bars() {
		verdict := "missed"
		if bar.met {
			verdict = "met"
		}
		fmt.Fprintf(w, "| %s | %s | %s |\n", bar.text, bar.reached, verdict)
	}
}
