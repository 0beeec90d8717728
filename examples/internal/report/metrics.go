package report

import (
	"flag"
	"fmt"
	"time"

	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/internal/metrics"
)

// Metrics writes what a run has done to a file, as a flag says. The zero value does nothing.
type Metrics struct{ path string }

// Register defines the flag.
func (m *Metrics) Register(f *flag.FlagSet) {
	f.StringVar(&m.path, "metrics", "", "write what this run has done to `FILE`, for Prometheus, as node_exporter's textfile collector reads it; the name must end in .prom for that")
}

// Stocked writes the file of docker-cache. A file that cannot be written is a warning.
func (m *Metrics) Stocked(out *cli.Output, began time.Time, results []*Stocked) {
	if m.path == "" {
		return
	}
	set := new(metrics.Set)
	r := newRun(set, "dockercache_stock_", began)
	downloaded := set.Gauge("dockercache_stock_image_downloaded_bytes", "Bytes of layers that the last run fetched.", "image")
	reused := set.Gauge("dockercache_stock_image_reused_bytes", "Bytes of layers that were in other tarballs.", "image")
	resumed := set.Gauge("dockercache_stock_image_resumed_bytes", "Bytes of layers that an earlier attempt had left.", "image")
	for _, s := range results {
		image := s.label()
		r.image(image, s.Outcome, s.BytesTotal, s.Seconds, s.Phases)
		downloaded.Set(float64(s.BytesDownloaded), image)
		reused.Set(float64(s.BytesReused), image)
		resumed.Set(float64(s.BytesResumed), image)
	}
	m.write(out, set)
}

// Loaded writes the file of load-image. A file that cannot be written is a warning.
func (m *Metrics) Loaded(out *cli.Output, began time.Time, results []*Loaded) {
	if m.path == "" {
		return
	}
	set := new(metrics.Set)
	r := newRun(set, "dockercache_load_", began)
	streamed := set.Gauge("dockercache_load_image_streamed_bytes", "Bytes that the engine was sent.", "image")
	for _, l := range results {
		r.image(l.Image, l.Outcome, l.BytesTotal, l.Seconds, l.Phases)
		streamed.Set(float64(l.BytesStreamed), l.Image)
	}
	m.write(out, set)
}

// run is the families that the files of all programs have.
type run struct{ outcome, size, seconds, phases *metrics.Family }

func newRun(set *metrics.Set, prefix string, began time.Time) run {
	set.Gauge(prefix+"last_run_timestamp_seconds", "When the last run ended.").SetTime(time.Now())
	set.Gauge(prefix+"last_run_seconds", "How long it took.").Set(seconds(began))
	return run{
		outcome: set.Gauge(prefix+"image_outcome", "1 for the outcome of an image in the last run.", "image", "outcome"),
		size:    set.Gauge(prefix+"image_size_bytes", "The size of its tarball.", "image"),
		seconds: set.Gauge(prefix+"image_seconds", "How long the work on it took.", "image"),
		phases:  set.Gauge(prefix+"image_phase_seconds", "How long each phase of that took.", "image", "phase"),
	}
}

func (r *run) image(image, outcome string, size int64, seconds float64, phases Phases) {
	r.outcome.Set(1, image, outcome)
	r.size.Set(float64(size), image)
	r.seconds.Set(seconds, image)
	for p, s := range phases {
		r.phases.Set(s, image, string(p))
	}
}

func (m *Metrics) write(out *cli.Output, set *metrics.Set) {
	if err := set.WriteFile(m.path); err != nil {
		out.Warn(fmt.Sprintf("-metrics: %v", err))
	}
}
