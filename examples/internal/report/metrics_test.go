package report

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/internal/metrics/metricstest"
)

// metricsTo returns what writes the file at path.
func metricsTo(t *testing.T, path string) *Metrics {
	t.Helper()
	m := &Metrics{}
	f := flag.NewFlagSet("", flag.ContinueOnError)
	m.Register(f)
	require.NoError(t, f.Parse([]string{"-metrics", path}))
	return m
}

func TestMetrics(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache.prom")
	began := time.Now()
	several := &Stocked{Image: `x/a:"1"`, Platform: "linux/arm64", OneOfSeveral: true, Start: began}
	several.Put(&cache.Result{Outcome: cache.Stocked, Path: "a.tar", Total: 100, Downloaded: 60, Reused: 30, Resumed: 10})
	several.End(nil, "")
	several.Phases, several.Seconds = Phases{timing.Fetch: 1.5, timing.Hash: 0.25}, 2
	failed := &Stocked{Image: "x/b:1", Start: began}
	failed.End(errors.New("it is gone"), "")
	failed.Seconds = 0
	metricsTo(t, path).Stocked(nil, began, []*Stocked{several, failed})
	text := read(t, path)
	metricstest.Documented(t, "docker-cache", text)
	for _, line := range []string{
		`dockercache_stock_image_outcome{image="x/a:\"1\" for linux/arm64",outcome="stocked"} 1`,
		`dockercache_stock_image_outcome{image="x/b:1",outcome="failed"} 1`,
		`dockercache_stock_image_seconds{image="x/a:\"1\" for linux/arm64"} 2`,
		`dockercache_stock_image_phase_seconds{image="x/a:\"1\" for linux/arm64",phase="fetch"} 1.5`,
		`dockercache_stock_image_downloaded_bytes{image="x/a:\"1\" for linux/arm64"} 60`,
		`dockercache_stock_image_reused_bytes{image="x/a:\"1\" for linux/arm64"} 30`,
		`dockercache_stock_image_resumed_bytes{image="x/a:\"1\" for linux/arm64"} 10`,
		`dockercache_stock_image_size_bytes{image="x/b:1"} 0`,
	} {
		assert.Contains(t, text, line+"\n")
	}

	loaded := &Loaded{Image: "x/a:1", Outcome: "loaded-delta", BytesStreamed: 5, BytesTotal: 100, Start: began}
	loaded.End(nil, "", "")
	metricsTo(t, path).Loaded(nil, began, []*Loaded{loaded})
	text = read(t, path)
	metricstest.Documented(t, "load-image", text)
	assert.Contains(t, text, `dockercache_load_image_streamed_bytes{image="x/a:1"} 5`+"\n")
	assert.NotContains(t, text, "dockercache_stock_", "the file is of the last run")

	(&Metrics{}).Stocked(nil, began, nil) // nothing was asked for
}

// A file that cannot be written is a warning: the images are stocked all the same.
func TestMetricsThatCannotBeWritten(t *testing.T) {
	_, stderr := verbosity(t, func(out *cli.Output) {
		metricsTo(t, filepath.Join(t.TempDir(), "gone", "cache.prom")).Loaded(out, time.Now(), nil)
	})
	assert.Contains(t, stderr, "warning: -metrics: ")
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}
