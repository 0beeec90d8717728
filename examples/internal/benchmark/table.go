//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// A table is printed in Markdown.
type table struct {
	title, note string
	text        int // how many columns, from the left, have text; the others have numbers
	head        []string
	rows        [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(w io.Writer) {
	if len(t.rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n### %s\n\n%s", t.title, t.note)
	rule := strings.Repeat("|---", t.text) + strings.Repeat("|--:", len(t.head)-t.text)
	fmt.Fprintf(w, "| %s |\n%s|\n", strings.Join(t.head, " | "), rule)
	for _, row := range t.rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
	}
}

// A row is what a program used for a work, run by run.
type row struct {
	work, program string
	usages        []*usage
}

func (r *row) add(u *usage) {
	r.usages = append(r.usages, u)
	fmt.Fprintf(os.Stderr, "%s, %s: %.2f s, CPU %.2f s\n", r.work, r.program, u.Wall.Seconds(), u.CPU.Seconds())
}

// A column is a number of a [usage].
type column func(u *usage) float64

func wall(u *usage) float64     { return u.Wall.Seconds() }
func cpu(u *usage) float64      { return u.CPU.Seconds() }
func peak(u *usage) float64     { return mib(u.Peak) }
func written(u *usage) float64  { return mib(u.Written) }
func byEngine(u *usage) float64 { return mib(u.Engine) }
func byBoth(u *usage) float64   { return mib(u.Written + u.Engine) }

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// addRows adds what was measured to a table with the columns work, program, runs
// and those given. Ratios are to the first program of each work.
func (t *table) addRows(rows []*row, columns ...column) {
	var base *row
	for _, r := range rows {
		if len(r.usages) == 0 {
			continue
		}
		if base == nil || base.work != r.work {
			base = r
		}
		cells := []string{r.work, r.program, fmt.Sprint(len(r.usages))}
		for _, c := range columns {
			cells = append(cells, r.cell(c, base))
		}
		t.add(cells...)
	}
}

func (r *row) values(c column) (values []float64) {
	for _, u := range r.usages {
		values = append(values, c(u))
	}
	return values
}

// cell is the median, the spread if there is one, and the ratio to another row.
func (r *row) cell(c column, base *row) string {
	text := spread(r.values(c))
	if of := median(base.values(c)); r != base && of > 0 {
		text += fmt.Sprintf(" **%.3g×**", median(r.values(c))/of)
	}
	return text
}

// spread is the median, and the least and the most if they differ.
func spread(values []float64) string {
	text := short(median(values))
	if least, most := short(slices.Min(values)), short(slices.Max(values)); least != most {
		text += fmt.Sprintf(" (%s–%s)", least, most)
	}
	return text
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// short is a number with three digits, and never with an exponent.
func short(v float64) string {
	if v >= 999.5 { // %.3g would print 1e+03
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
