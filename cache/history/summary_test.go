package history

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/timing"
)

func load(outcome string, streamed int64, seconds float64, phases map[timing.Phase]float64) Record {
	return Record{
		Time: noon.Add(time.Minute), Host: "runner-2", Program: "load-image", Kind: Load, Outcome: outcome, Image: stock().Image, Digest: stock().Digest,
		BytesTotal: 3000, BytesStreamed: streamed, Seconds: seconds, Phases: phases,
	}
}

type phases = map[timing.Phase]float64

// The formula in the package's documentation. The registry of stock gave 2000 bytes in 20 seconds
// through 4 connections: 100 bytes a second in all and 25 for each. It took a second to resolve.
func TestSaving(t *testing.T) {
	otherRegistry := stock()
	otherRegistry.Image, otherRegistry.Origins = "docker.io/library/other:tag", []Origin{{"index.docker.io/library/other", 1000, 1, 1}}
	fromStore := stock()
	fromStore.Origins = []Origin{{"s3://bucket/prefix", 1 << 40, 1, 1}, {"/mnt/cache", 1 << 40, 1, 1}}
	failed := stock()
	failed.Outcome, failed.Origins, failed.Phases = Failed, nil, phases{timing.Resolve: 100}
	cold := load(Loaded, 3000, 40, phases{timing.Find: 1, timing.Stream: 9, timing.Engine: 30})
	elsewhere := cold
	elsewhere.Image = "docker.io/library/other:tag"
	unmeasured := cold
	unmeasured.Image = "quay.io/team/image:tag"
	noPhases := cold
	noPhases.Phases = nil
	saved := cold
	saved.Digest = ""
	for name, c := range map[string]struct {
		records []Record
		want    Saving
	}{
		"cold":                          {[]Record{stock(), cold}, Saving{Loads: 1, Seconds: 40, PullLeast: 1 + 30 + 30, PullMost: 1 + 120 + 30, RateOf: []string{"registry.example.com"}}},
		"delta":                         {[]Record{stock(), load(Delta, 100, 3, phases{timing.Engine: 2})}, Saving{Loads: 1, Seconds: 3, PullLeast: 1 + 1 + 2, PullMost: 1 + 4 + 2, RateOf: []string{"registry.example.com"}}},
		"nothing is saved by present":   {[]Record{stock(), load(Present, 0, 0.5, phases{timing.Find: 0.5})}, Saving{Loads: 1, Seconds: 0.5, PullLeast: 1, PullMost: 1}},
		"present without a stock":       {[]Record{load(Present, 0, 0.5, nil)}, Saving{Loads: 1, Seconds: 0.5}},
		"the image's own registry":      {[]Record{stock(), otherRegistry, elsewhere}, Saving{Loads: 1, Seconds: 40, PullLeast: 1 + 3 + 30, PullMost: 1 + 3 + 30, RateOf: []string{"index.docker.io"}}},
		"others, where that is unknown": {[]Record{stock(), otherRegistry, unmeasured}, Saving{Loads: 1, Seconds: 40, PullLeast: 1 + 21 + 30, PullMost: 1 + 81 + 30, RateOf: []string{"index.docker.io", "registry.example.com"}}},
		"no stock":                      {[]Record{cold}, Saving{Unknown: 1}},
		"only stores":                   {[]Record{fromStore, cold}, Saving{Unknown: 1}},
		"a failed stock's resolve":      {[]Record{stock(), failed, load(Present, 0, 0.5, nil)}, Saving{Loads: 1, Seconds: 0.5, PullLeast: 1, PullMost: 1}},
		"no phases":                     {[]Record{stock(), noPhases}, Saving{Unknown: 1}},
		"another program's archive":     {[]Record{stock(), saved}, Saving{Unknown: 1}},
		"missing and failed":            {[]Record{stock(), load(Missing, 0, 1, nil), load(Failed, 5, 1, nil)}, Saving{}},
	} {
		got := Summarize(c.records, nil).All.Saving
		got.RateOf = append([]string(nil), got.RateOf...)
		assert.InDelta(t, c.want.PullLeast, got.PullLeast, 1e-9, name)
		assert.InDelta(t, c.want.PullMost, got.PullMost, 1e-9, name)
		got.PullLeast, got.PullMost = c.want.PullLeast, c.want.PullMost
		assert.Equal(t, c.want, got, name)
		assert.InDelta(t, c.want.PullLeast-c.want.Seconds, got.Least(), 1e-9)
		assert.InDelta(t, c.want.PullMost-c.want.Seconds, got.Most(), 1e-9)
	}
}

func TestSummarize(t *testing.T) {
	yesterday := stock()
	yesterday.Time, yesterday.Image = noon.Add(-24*time.Hour), "registry.example.com/team/old:tag"
	unchanged := stock()
	unchanged.Outcome, unchanged.Origins, unchanged.Seconds, unchanged.Phases = "unchanged", nil, 1, phases{timing.Resolve: 1}
	records := []Record{
		yesterday, stock(), unchanged,
		load(Loaded, 3000, 40, phases{timing.Stream: 10, timing.Engine: 30}), load(Delta, 100, 2, phases{timing.Engine: 2}), load(Delta, 200, 4, phases{timing.Engine: 4}), load(Delta, 300, 9, nil),
		load(Present, 0, 1, nil), load(Missing, 0, 1, nil), load(Failed, 0, 1, nil),
		{Time: noon, Host: "runner-3", Kind: Clone, Outcome: "cloned", Seconds: 0.1},
		{Time: noon, Host: "runner-3", Kind: Fill, Outcome: "filled", Seconds: 9, Origins: []Origin{{"ghcr.io/x/y", 77, 1, 1}}},
	}
	report := Summarize(records, &SummaryOptions{Since: noon})
	all := report.All
	assert.Equal(t, 11, all.Records)
	assert.Equal(t, 7, all.Loads)
	assert.Equal(t, 5, all.Hits)
	assert.Equal(t, noon, all.First)
	assert.Equal(t, noon.Add(time.Minute), all.Last)
	assert.EqualValues(t, 2077, all.BytesFetched)
	assert.Equal(t, []OriginBytes{{"registry.example.com/team/image", 2000}, {"ghcr.io/x/y", 77}}, all.Origins)
	assert.EqualValues(t, 3600, all.BytesStreamed)
	assert.EqualValues(t, 1000, all.BytesReused, "of both stocks")
	var ways []string
	for _, w := range all.Ways {
		ways = append(ways, string(w.Kind)+" "+w.Outcome)
	}
	assert.Equal(t, []string{"stock stocked", "stock unchanged", "load loaded-delta", "load failed", "load loaded", "load missing", "load present", "clone cloned", "fill filled"}, ways)
	assert.Equal(t, Way{Load, Delta, 3, 4, 5, phases{timing.Engine: 3}}, all.Ways[2])
	assert.Equal(t, PhaseSeconds{Load, timing.Engine, 3, 36, 4}, all.Phases[0], "the slowest")
	assert.Equal(t, PhaseSeconds{Stock, timing.Fetch, 1, 20, 20}, all.Phases[1])
	assert.Equal(t, 1, all.Saving.Unknown, "the delta without phases")

	names := func(uses []Use) (all []string) {
		for _, u := range uses {
			all = append(all, u.Name)
		}
		return all
	}
	assert.Equal(t, []string{stock().Image, ""}, names(report.Images))
	assert.Equal(t, []string{"runner-2", "runner-1", "runner-3"}, names(report.Hosts))
	assert.Equal(t, []string{"2026-11-26"}, names(report.Days))
	assert.Equal(t, []string{"2026-11-25", "2026-11-26"}, names(Summarize(records, nil).Days))

	// What is too old to count says how fast the registry was all the same.
	old := Summarize([]Record{yesterday, load(Loaded, 100, 1, phases{timing.Engine: 1})}, &SummaryOptions{Since: noon})
	assert.Equal(t, 1, old.All.Records)
	assert.Equal(t, 1, old.All.Saving.Loads)

	empty := Summarize(nil, nil)
	assert.Zero(t, empty.All.Records)
	assert.Empty(t, empty.Images)
}

// False records cannot make numbers wrap around.
func TestSummarizeOfHugeNumbers(t *testing.T) {
	var records []Record
	for range 20 {
		r := stock()
		r.BytesReused, r.Origins = maxBytes, []Origin{{"x.example/y", maxBytes, maxSeconds, maxSeconds}}
		records = append(records, r, load(Loaded, maxBytes, maxSeconds, phases{timing.Engine: maxSeconds}))
	}
	all := Summarize(records, nil).All
	assert.EqualValues(t, math.MaxInt64, all.BytesReused)
	assert.EqualValues(t, math.MaxInt64, all.BytesFetched)
	require.False(t, math.IsInf(all.Saving.PullMost, 0) || math.IsNaN(all.Saving.PullMost))
}

func TestHostOf(t *testing.T) {
	for name, want := range map[string]string{
		"ghcr.io/x/y:t": "ghcr.io", "localhost:5000/x": "localhost:5000", "localhost/x": "localhost", "ubuntu:24.04": "index.docker.io", "library/ubuntu": "index.docker.io",
		"docker.io/library/ubuntu": "index.docker.io", "index.docker.io/library/ubuntu": "index.docker.io", "s3://bucket/x": "", "/mnt/x": "", "./x": "", "": "",
	} {
		assert.Equal(t, want, hostOf(name), name)
	}
}
