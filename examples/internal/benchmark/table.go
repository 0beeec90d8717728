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
func (r *row) values(column int) []float64 { return sortedBy(r.usages, columns[column].value) }

func (r *row) median(column int) float64 { return middle(r.values(column)) }

// cell is the median, its ratio to ours, and the spread if there is one.
func (r *row) cell(column int, ours *row) string {
	return cellOf(r.values(column), ours.median(column), r == ours)
}

func sortedBy(usages []*usage, value func(u *usage) float64) []float64 {
	var all []float64
	for _, u := range usages {
		all = append(all, value(u))
	}
	slices.Sort(all)
	return all
}

// middle is the median of sorted values.
func middle(sorted []float64) float64 {
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// cellOf is the median of sorted values, the spread if there is one, and unless
// they are ours the ratio to ours.
func cellOf(sorted []float64, ours float64, mine bool) string {
	text := short(middle(sorted))
	if len(sorted) > 1 {
		text += fmt.Sprintf(" (%s–%s)", short(sorted[0]), short(sorted[len(sorted)-1]))
	}
	if !mine && ours > 0 {
		text += fmt.Sprintf(" **%.3g×**", middle(sorted)/ours)
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
	b.printLoads(w)
	fmt.Fprint(w, "\n### The bars\n\n| bar | reached | |\n|---|---|---|\n")
	for _, bar := range b.bars() {
		verdict := "missed"
		if bar.met {
			verdict = "met"
		}
		fmt.Fprintf(w, "| %s | %s | %s |\n", bar.text, bar.reached, verdict)
	}
}
