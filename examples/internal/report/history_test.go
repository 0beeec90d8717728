package report

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/history"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/examples/internal/cli"
)

// recorder returns what appends to the log as these flags say.
func recorder(t *testing.T, args ...string) *History {
	t.Helper()
	h := &History{}
	f := flag.NewFlagSet("", flag.ContinueOnError)
	h.Register(f)
	require.NoError(t, f.Parse(args))
	require.NoError(t, h.Check())
	return h
}

func TestHistory(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	stocked := &Stocked{Image: "ghcr.io/x/y:t", Digest: "sha256:1", Start: time.Now()}
	at := time.Now()
	stocked.Timing.Begin(timing.Resolve, at)
	stocked.Timing.Begin(timing.Fetch, at.Add(1500*time.Millisecond))
	stocked.Put(&cache.Result{Outcome: cache.Stocked, Path: "dir/y_main.tar", Total: 100, Reused: 20, Resumed: 30, Sources: []tarball.SourceUse{
		{Name: "ghcr.io/x/y", Bytes: 50, Requests: 1, Busy: 2 * time.Second, Connected: 5 * time.Second}, {Name: "quay.io/x/y"},
	}})
	stocked.End(nil, "")
	assert.InDelta(t, 1.5, stocked.Phases[timing.Resolve], 1e-9)
	loaded := &Loaded{Image: "ghcr.io/x/y:t", Tarball: "s3://bucket/y_main.tar", Engine: "podman", BytesStreamed: 7, BytesTotal: 8, Start: time.Now()}
	loaded.End(errors.New("it is gone"), Missing, "")

	h := recorder(t)
	h.Open("docker-cache", dir, nil)
	h.Append(t.Context(), stocked.Record())
	h.Append(t.Context(), loaded.Record())
	records, skipped, err := history.Read(dir, time.Time{})
	require.NoError(t, err)
	assert.Zero(t, skipped)
	require.Len(t, records, 2)
	host, _ := os.Hostname()
	for i, want := range []history.Record{
		{Kind: history.Stock, Outcome: "stocked", Image: "ghcr.io/x/y:t", Tarball: "y_main.tar", Digest: "sha256:1", BytesTotal: 100, BytesReused: 20, BytesResumed: 30,
			Origins: []history.Origin{{Name: "ghcr.io/x/y", Bytes: 50, Seconds: 2, Connections: 2.5}}, Phases: map[timing.Phase]float64(stocked.Phases)},
		{Kind: history.Load, Outcome: "missing", Image: "ghcr.io/x/y:t", Tarball: "y_main.tar", Engine: "podman", BytesTotal: 8, BytesStreamed: 7,
			Origins: []history.Origin{}, Phases: map[timing.Phase]float64{}, Error: "it is gone"},
	} {
		want.Version, want.Host, want.Program = 1, host, "docker-cache"
		want.Time, want.Seconds = records[i].Time, records[i].Seconds
		assert.Equal(t, want, records[i])
	}

	elsewhere := recorder(t, "-history-dir", other)
	elsewhere.Open("load-image", "", nil)
	elsewhere.Append(t.Context(), loaded.Record())
	records, _, err = history.Read(other, time.Time{})
	require.NoError(t, err)
	assert.Len(t, records, 1)

	for _, off := range []*History{nil, {}, recorder(t, "-history=false"), recorder(t)} {
		if off != nil {
			off.Open("load-image", map[bool]string{true: other}[!off.on], nil) // the last one is on, and for a bucket
		}
		off.Append(t.Context(), loaded.Record())
	}
	records, _, err = history.Read(other, time.Time{})
	require.NoError(t, err)
	assert.Len(t, records, 1)
	both := &History{dir: other}
	assert.Error(t, both.Check())
}

// What keeps a record from being written is a warning, once, and nothing where this user may
// only read.
func TestHistoryWarnsOnce(t *testing.T) {
	run := func(dir string) string {
		_, stderr := verbosity(t, func(out *cli.Output) {
			h := recorder(t)
			h.Open("program", dir, out)
			for range 3 {
				h.Append(t.Context(), history.Record{Kind: history.Load, Outcome: "present"})
			}
		})
		return stderr
	}
	gone := filepath.Join(t.TempDir(), "gone")
	assert.Equal(t, 1, strings.Count(run(gone), "program: warning: what was done is not recorded: history: open "+gone))
	if os.Geteuid() != 0 { // root may write everywhere; see the scripts
		only := t.TempDir()
		require.NoError(t, os.Chmod(only, 0o500))
		assert.Empty(t, run(only))
	}
}
