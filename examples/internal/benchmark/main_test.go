//go:build linux

package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
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
	t.Parallel()
	out := runAll(t, "-scale", "0.01", "-repeat", "2", "-kill=false", "-slow=false", "-refused", "0", "-connections", "")
	for _, want := range []string{"(a) Straight", "(b) 25 MB/s", "giant (1 × 10.24 MiB)", "big (4 × 2.56 MiB)", "small (40 × 0.04 MiB)"} {
		assert.Contains(t, out, want)
	}
	// Counts are the same on any machine; times are not.
	assert.Contains(t, out, "| 1 for manifests, 0 for blobs, 1 to log in; written: false |")
	siblings := regexp.MustCompile(`\| ([0-9.]+) MiB of layers, ([0-9.]+) MiB are distinct;`).FindStringSubmatch(out)
	require.Len(t, siblings, 3)
	assert.Equal(t, siblings[2], siblings[1], "each shared layer is downloaded once")
	assert.Contains(t, out, "| (d) 5 % new: sent by the registry, of all, 10 runs | ")
	assert.Contains(t, out, "| big (4 × 2.56 MiB) | 13 | 2 | ")
}

// The same of what is slow, what refuses, and the number of connections. On layers
// that are fetched as one range no connection is the slow one.
func TestRunWithLimits(t *testing.T) {
	t.Parallel()
	out := runAll(t, "-scale", "0.001", "-repeat", "1", "-works", "small", "-links", straight,
		"-kill=false", "-sources=false", "-refresh=false", "-loads=false", "-fill=false", "-refused", "1", "-connections", "16")
	for _, want := range []string{
		"| at 1/200 | 1 | ", "| mirror, own registry | 1 | ", "| single (1 × 0.16 MiB) | default | 1 | ",
		"| few (5 × 0.004 MiB) | docker-cache | 1 | ", "| limit | runs | default | 16 | default, of the best |", "| 3 requests a second | 1 | ",
		"| (b) one giant layer, `-connections 16` | ",
	} {
		assert.Contains(t, out, want)
	}
}

// runAll returns what the benchmark prints, and requires that nothing stays behind.
func runAll(t *testing.T, args ...string) string {
	dir := t.TempDir()
	o, err := parseFlags(append(args, "-dir", dir, "-tools", ours))
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), o, &out))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)
	return out.String()
}

func TestFlagsAreChecked(t *testing.T) {
	for _, args := range [][]string{{"-works", "gaint"}, {"-links", "x"}, {"-tools", "crane"}, {"-scale", "0"}, {"-repeat", "0"}, {"-refused", "-1"}, {"-connections", "0"}, {"-connections", "1,x"}, {"x"}} {
		_, err := parseFlags(args)
		assert.Error(t, err, args)
	}
	for list, want := range map[string][]int{"": nil, "16": {16}, "4,64": {4, 64}} {
		o, err := parseFlags([]string{"-connections", list})
		require.NoError(t, err)
		assert.Equal(t, want, o.connections)
	}
}

// A measurement counts what the program did, not what this process is.
func TestMeasured(t *testing.T) {
	for _, program := range []string{"sh", "head", "tail"} {
		testtool.Need(t, program)
	}
	ballast := bytes.Repeat([]byte{1}, 100<<20)
	u := measured(t.Context(), []string{"NAME=value"}, "sh", "-c", `test "$NAME" = value && head -c 3000000 /dev/zero | tail -c 2000000 >/dev/null`)
	assert.Less(t, u.Peak, int64(len(ballast)), "the parent's memory was counted")
	assert.GreaterOrEqual(t, u.Written, int64(5_000_000), "children count")
	assert.Positive(t, u.Wall)
	assert.NotZero(t, ballast[len(ballast)-1]) // it was in memory all the time

	err := catch(func() { measured(t.Context(), nil, "sh", "-c", "echo the reason >&2; exit 1") })
	assert.ErrorContains(t, err, "the reason")
}

// What is printed: medians, the spread, and ratios to the first program of a work;
// tables in the order of their titles.
func TestTable(t *testing.T) {
	second := func(n float64) *usage {
		return &usage{Wall: time.Duration(n * 1e9), CPU: time.Second, Peak: 32 << 20, Written: 1 << 29, Engine: 1 << 29}
	}
	a := &table{title: "(a)", text: 2, head: []string{"work", "program", "runs", "wall", "CPU", "peak", "written"}}
	b := &table{title: "(b)", text: 1, head: []string{"what", "n"}, note: "A note.\n\n", rows: [][]string{{"x", "1"}}}
	a.addRows([]*row{
		{"giant", ours, []*usage{second(5), second(3), second(4)}},
		{"giant", "crane", []*usage{second(48)}},
		{"giant", "docker", nil},
		{"small", ours, []*usage{second(1)}},
		{"small", "crane", []*usage{second(2)}},
	}, wall, cpu, peak, byBoth)
	bench := &bench{tools: []tool{{name: ours}, {name: "crane", version: "v1"}}, tables: []*table{b, a, {title: "(c)"}}}
	bench.count("killed", "%d %%", 9)
	var out bytes.Buffer
	bench.print(&out)
	_, tables, _ := strings.Cut(out.String(), " crane: v1.\n")
	assert.Equal(t, `
### (a)

| work | program | runs | wall | CPU | peak | written |
|---|---|--:|--:|--:|--:|--:|
| giant | docker-cache | 3 | 4 (3–5) | 1 | 32 | 1024 |
| giant | crane | 1 | 48 **12×** | 1 **1×** | 32 **1×** | 1024 **1×** |
| small | docker-cache | 1 | 1 | 1 | 32 | 1024 |
| small | crane | 1 | 2 **2×** | 1 **1×** | 32 **1×** | 1024 **1×** |

### (b)

A note.

| what | n |
|---|--:|
| x | 1 |

### Counts

| what | measured |
|---|---|
| killed | 9 % |
`, tables, "what was not measured is not printed")
	for v, want := range map[float64]string{0.12345: "0.123", 998.6: "999", 999.6: "1000", 13865.2: "13865"} {
		assert.Equal(t, want, short(v))
	}
	assert.InDelta(t, 2.5, median([]float64{9, 1, 3, 2}), 0)
}

// Each request is counted as what it is, by the link that it came over.
func TestServer(t *testing.T) {
	b := &bench{options: &options{ratio: 1}, scratch: t.TempDir()}
	l := b.makeLayer("layer", 10_000)
	b.makeTag("image", l)
	s := startServer(t.Context(), b.scratch)
	defer s.stop()
	url := "http://" + s.hosts[limited] + "/v2/"
	before := s.stats(t.Context(), limited, -1)
	get(t.Context(), url)
	assert.Contains(t, string(get(t.Context(), url+"bench/image/manifests/image")), l.Digest.String())
	assert.Len(t, get(t.Context(), url+"bench/image/blobs/"+l.Digest.String()), int(l.Size))
	get(t.Context(), url+"bench/image/blobs/"+l.Digest.String())
	got := s.stats(t.Context(), limited, before.Written+2*l.Size).since(before)
	assert.Greater(t, got.Written, 2*l.Size)
	got.Written = 0
	assert.Equal(t, stats{Manifests: 1, Blobs: 2, Other: 1}, got)
	assert.EqualValues(t, 4, got.requests())
	assert.Zero(t, s.stats(t.Context(), straight, -1))

	// A link that is opened again has nothing of the one before, and that one is closed.
	s.open(t.Context(), limited, link{})
	assert.Zero(t, s.stats(t.Context(), limited, -1))
	assert.Error(t, catch(func() { get(t.Context(), url) }))
	get(t.Context(), "http://"+s.hosts[limited]+"/v2/")
	assert.EqualValues(t, 1, s.stats(t.Context(), limited, 0).Other)
}

// An error that ends the benchmark is returned, with what is deferred done; a
// defect is still a panic.
func TestCatch(t *testing.T) {
	done := false
	assert.ErrorIs(t, catch(func() { defer func() { done = true }(); must(os.Open("/nonexistent")) }), os.ErrNotExist)
	assert.True(t, done)
	assert.NoError(t, catch(func() { check(nil) }))
	assert.Panics(t, func() { _ = catch(func() { panic("defect") }) })
}

func TestTurns(t *testing.T) {
	o, err := parseFlags([]string{"-repeat", "2", "-repeat-limited", "1", "-docker-links", "straight"})
	require.NoError(t, err)
	b := &bench{options: o, tools: []tool{{name: ours}, {name: "crane"}, {name: "docker"}}}
	assert.Equal(t, []int{0, 1, 0, 2, 0, 1}, b.turns(straight), "docker once")
	assert.Equal(t, []int{0, 1}, b.turns(limited))
	b.tools = b.tools[:1]
	assert.Equal(t, []int{0, 0}, b.turns(straight))
}
