//go:build linux

package main

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/testtool"
)

// TestMain lets the test binary be the processes that the benchmark starts.
func TestMain(m *testing.M) {
	runPart(os.Args)
	os.Exit(m.Run())
}

// The whole benchmark, on images of some KiB and without other programs: every
// work is measured over every link, and nothing stays behind. Without the kill:
// on so small an image whether it comes in time is a matter of luck.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	o, err := parseFlags([]string{"-dir", dir, "-scale", "0.01", "-repeat", "2", "-tools", ours, "-kill=false"})
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), o, &out))
	for _, want := range []string{"(a) Straight", "(b) 25 MB/s", "giant (1 × 10.24 MiB)", "big (4 × 2.56 MiB)", "small (40 × 0.04 MiB)"} {
		assert.Contains(t, out.String(), want)
	}
	// Counts are the same on any machine; times are not.
	for _, want := range []string{"1 for manifests, 0 for blobs, 1 to log in; written: false | met", "crosses the network once |"} {
		assert.Contains(t, out.String(), want)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestFlagsAreChecked(t *testing.T) {
	for _, args := range [][]string{{"-works", "gaint"}, {"-links", "x"}, {"-tools", "crane"}, {"-scale", "0"}, {"-repeat", "0"}, {"x"}} {
		_, err := parseFlags(args)
		assert.Error(t, err, args)
	}
}

// A measurement counts what the program did, not what this process is.
func TestMeasured(t *testing.T) {
	for _, program := range []string{"sh", "head", "tail"} {
		testtool.Need(t, program)
	}
	ballast := bytes.Repeat([]byte{1}, 100<<20)
	u, err := measured(t.Context(), []string{"NAME=value"}, "sh", "-c", `test "$NAME" = value && head -c 3000000 /dev/zero | tail -c 2000000 >/dev/null`)
	require.NoError(t, err)
	assert.Less(t, u.Peak, int64(len(ballast)), "the parent's memory was counted")
	assert.GreaterOrEqual(t, u.Written, int64(5_000_000), "children count")
	assert.Positive(t, u.Wall)
	assert.NotZero(t, ballast[len(ballast)-1]) // it was in memory all the time

	_, err = measured(t.Context(), nil, "sh", "-c", "echo the reason >&2; exit 1")
	assert.ErrorContains(t, err, "the reason")
}

// What is printed, and what is made of it.
func TestTable(t *testing.T) {
	o, err := parseFlags(nil)
	require.NoError(t, err)
	b := &bench{options: o, tools: []tool{&commandTool{label: ours}, &commandTool{label: "crane", says: "v1"}}}
	second := func(n float64) *usage {
		return &usage{Wall: time.Duration(n * 1e9), CPU: time.Second, Peak: 32 << 20, Written: 1 << 30}
	}
	for _, link := range []string{straight, limited} {
		for _, w := range works {
			b.rows = append(b.rows,
				&row{w, link, ours, []*usage{second(5), second(3), second(4)}},
				&row{w, link, "crane", []*usage{second(48)}},
				&row{w, link, "docker", nil})
		}
	}
	b.kill = &killed{size: 1000 << 20, before: 900 << 20, again: 120 << 20, wall: time.Second}
	var out bytes.Buffer
	b.print(&out)
	assert.Contains(t, out.String(), "| giant (1 × 1024 MiB) | docker-cache | 3 | 4 (3–5) | 1 (1–1) | 32 (32–32) | 1024 (1024–1024) |")
	assert.Contains(t, out.String(), "| small (40 × 4 MiB) | crane | 1 | 48 **12×** | 1 **1×** | 32 **1×** | 1024 **1×** |")
	assert.NotContains(t, out.String(), "| docker |", "what was not measured is not in the table")
	met := map[string]bool{}
	for _, bar := range b.bars() {
		met[bar.reached] = bar.met
	}
	assert.Equal(t, map[string]bool{
		"12.0× (crane)": true, // twice: one giant layer, and small ones
		"67 %":          false,
		"0.08× (crane)": true,
		"1.00× (crane)": true,
		"32 MiB":        true,
		"12.0 % (120.0 MiB) in 1.00 s; killed at 90.0 %, so 20.0 MiB came twice": true,
	}, met)
	b.kill.again += 20 << 20
	bars := b.bars()
	assert.False(t, bars[len(bars)-1].met)
}

// Each bar of a refresh is missed when what it is about is a little too much.
func TestRefreshBars(t *testing.T) {
	good := func() *refresh {
		ms := time.Millisecond
		return &refresh{
			total:     1000 << 20,
			unchanged: unchanged{manifests: 1, all: 2, more: []time.Duration{40 * ms, 50 * ms, 90 * ms}},
			siblings:  siblings{downloaded: 1050 << 20, sent: 1060 << 20, distinct: 1050 << 20, shared: 240 << 20},
			systems: []*refreshed{
				{name: "xfs", clones: true, sent: 60 << 20, allocated: 70 << 20, full: []time.Duration{1}, wall: []time.Duration{1}},
				{name: "ext4", sent: 60 << 20, allocated: 1000 << 20, full: []time.Duration{500 * ms}, wall: []time.Duration{100 * ms}},
			},
		}
	}
	met := func(r *refresh) (met []bool) {
		for _, bar := range r.bars() {
			met = append(met, bar.met)
		}
		return met
	}
	assert.Equal(t, []bool{true, true, true, true, true, true, true}, met(good()))
	for missed, changes := range map[int][]func(r *refresh){
		0: {
			func(r *refresh) { r.unchanged.manifests, r.unchanged.all = 2, 3 },
			func(r *refresh) { r.unchanged.blobs, r.unchanged.all = 1, 3 },
			func(r *refresh) { r.unchanged.all = 3 },
			func(r *refresh) { r.unchanged.wrote = true },
		},
		1: {func(r *refresh) { r.unchanged.more[1]++; r.unchanged.more[0] = r.unchanged.more[1] }},
		2: {
			func(r *refresh) { r.siblings.downloaded++ },
			func(r *refresh) { r.siblings.sent += 240 << 20 },
		},
		3: {func(r *refresh) { r.systems[0].sent++ }},
		4: {func(r *refresh) { r.systems[0].allocated++ }},
		5: {func(r *refresh) { r.systems[1].sent++ }},
		6: {func(r *refresh) { r.systems[1].wall[0]++ }},
	} {
		for _, change := range changes {
			r := good()
			change(r)
			for i, met := range met(r) {
				assert.Equal(t, i != missed, met, "bar %d when %d is missed", i, missed)
			}
		}
	}
}

func TestTurns(t *testing.T) {
	o, err := parseFlags([]string{"-repeat", "2", "-repeat-limited", "1", "-docker-links", "straight"})
	require.NoError(t, err)
	b := &bench{options: o, tools: []tool{&commandTool{label: ours}, &commandTool{label: "crane"}, &commandTool{label: "docker"}}}
	assert.Equal(t, []int{0, 1, 0, 2, 0, 1}, b.turns(straight), "docker once")
	assert.Equal(t, []int{0, 1}, b.turns(limited))
	b.tools = b.tools[:1]
	assert.Equal(t, []int{0, 0}, b.turns(straight))
}
