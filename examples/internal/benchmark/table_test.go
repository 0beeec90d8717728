//go:build linux

package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// runsOf is a row of runs that took so many seconds each.
func runsOf(program string, seconds ...float64) *row {
	r := &row{work: "giant", program: program}
	for _, s := range seconds {
		r.usages = append(r.usages, &usage{Wall: time.Duration(s * 1e9)})
	}
	return r
}

// The default is compared with the best number; what always fails is not the best.
func TestConnectionCells(t *testing.T) {
	rows := []*row{runsOf("default", 2, 2.2), runsOf("1", 4), runsOf("2", 2, 2), runsOf("4")}
	assert.Equal(t, []string{"2.1 (2–2.2)", "4, failed: 1", "2", "failed: 2", "**1.05×** (2)"}, connectionCells(rows, []int{0, 1, 0, 2}))
	assert.Equal(t, []string{"failed: 1", "3", "–"}, connectionCells([]*row{runsOf("default"), runsOf("1", 3)}, []int{1, 0}))
	assert.Equal(t, []string{"3", "failed: 1", "–"}, connectionCells([]*row{runsOf("default", 3), runsOf("1")}, []int{0, 1}))
}

// Programs are compared by the runs that succeeded.
func TestAddAttempts(t *testing.T) {
	attemptsOf := func(program string, failed int, seconds ...float64) *attempts {
		return &attempts{row: *runsOf(program, seconds...), runs: failed + len(seconds), failed: failed, requests: []float64{9}, refused: []float64{3}}
	}
	w := work{"giant", 1, 1 << 30}
	b, table := &bench{}, &table{}
	b.addAttempts(table, w, []*attempts{attemptsOf(ours, 1, 3, 3), attemptsOf("crane", 0, 4), attemptsOf("regctl", 1), attemptsOf("skopeo", 0, 2, 2)})
	assert.Equal(t, [][]string{
		{"giant", ours, "3", "2", "3", "9", "3"},
		{"giant", "crane", "1", "1", "4 **1.33×**", "9", "3"},
		{"giant", "regctl", "1", "0", "–", "9", "3"},
		{"giant", "skopeo", "2", "2", "2 **0.667×**", "9", "3"},
	}, table.rows)
	assert.Equal(t, [][]string{{"(i) giant (1 × 1024 MiB): time, to the fastest other program", "1.50× (skopeo); 2 of 3 succeeded"}}, b.counts)

	b.addAttempts(table, w, []*attempts{attemptsOf(ours, 2), attemptsOf("crane", 0, 4)})
	assert.Equal(t, [][]string{{"giant", ours, "2", "0", "–", "9", "3"}, {"giant", "crane", "1", "1", "4", "9", "3"}}, table.rows[4:], "nothing to compare with")
	assert.Len(t, b.counts, 1)

	b.addAttempts(table, w, []*attempts{attemptsOf(ours, 0, 1), attemptsOf("crane", 0, 4)})
	assert.Equal(t, "0.25× (crane); 1 of 1 succeeded", b.counts[1][1], "the fastest other one")
}

func TestPercentOf(t *testing.T) {
	w := work{"x", 2, 50_000_000}
	assert.Equal(t, "75 (50–100) %", percentOf(100_000_000, w, runsOf("", 1, 2)))
	assert.Empty(t, percentOf(0, w, runsOf("", 1)))
}

func TestReadBesides(t *testing.T) {
	s := stocked{read: 100, stats: stats{Written: 33}, downloaded: 30, copied: 50}
	assert.EqualValues(t, 20, s.readBesides())
	s.copied = 90
	assert.Zero(t, s.readBesides())
}
