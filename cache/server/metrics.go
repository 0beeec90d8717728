package server

import (
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/dockercache/dockercache/internal/metrics"
)

// counts are what a server has done since it was made.
type counts struct {
	fillsRunning, fillsDone, fillsFailed atomic.Int64
	fetched                              atomic.Int64 // bytes
	skipped                              atomic.Int64

	mu       sync.Mutex
	requests map[answered]int64
	sent     map[string]int64 // bytes by kind
}

// answered is a kind of request, and the status of the answer.
type answered struct {
	kind string
	code int
}

// A counter counts what is written to a response.
type counter struct {
	http.ResponseWriter
	code int
	sent int64
}

func (c *counter) WriteHeader(code int) {
	if c.code == 0 {
		c.code = code
	}
	c.ResponseWriter.WriteHeader(code)
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.sent += int64(n)
	return n, err
}

// ReadFrom leaves it to the response, or to the layer, how a body is copied: [http.ServeContent]
// has the layer behind a limit.
func (c *counter) ReadFrom(r io.Reader) (n int64, err error) {
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{}
	}
	if l, ok := limited.R.(*layer); ok {
		n, err = l.writeTo(c.ResponseWriter, limited.N)
		limited.N -= n
	} else {
		n, err = io.Copy(c.ResponseWriter, r)
	}
	c.sent += n
	return n, err
}

// Unwrap is for [http.ResponseController].
func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// kindOf returns what a path asks for, of few.
func kindOf(path string) string {
	last, kind := -1, "other"
	for _, k := range []string{"blobs", "manifests", "referrers"} {
		if at := strings.LastIndex(path, "/"+k+"/"); at > last {
			last, kind = at, k
		}
	}
	return kind
}

// count counts an answer that was given.
func (m *counts) count(c *counter, kind string) {
	if c.code == 0 {
		c.code = http.StatusOK
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.requests == nil {
		m.requests, m.sent = map[answered]int64{}, map[string]int64{}
	}
	m.requests[answered{kind, c.code}]++
	m.sent[kind] += c.sent
}

// serveMetrics serves the counts, for Prometheus. They have no names of images.
func (s *server) serveMetrics(w http.ResponseWriter, r *http.Request) error {
	known, err := s.catalog.images(r.Context(), true)
	if err != nil {
		return err
	}
	m := &s.counts
	m.mu.Lock()
	requests, sent := maps.Clone(m.requests), maps.Clone(m.sent)
	m.mu.Unlock()
	var set metrics.Set
	set.Gauge("dockercache_images", "Images that are served.").Set(float64(len(known.all)))
	set.Counter("dockercache_skipped_files_total", "Files that were found not to be served.").Set(float64(m.skipped.Load()))
	answers := set.Counter("dockercache_requests_total", "Answers, by what was asked for and the status.", "kind", "code")
	for a, n := range requests {
		answers.Set(float64(n), a.kind, strconv.Itoa(a.code))
	}
	bytes := set.Counter("dockercache_sent_bytes_total", "Bytes of answers, by what was asked for.", "kind")
	for kind, n := range sent {
		bytes.Set(float64(n), kind)
	}
	if s.filler != nil {
		set.Gauge("dockercache_fills_running", "Images that are being fetched from their own registries.").Set(float64(m.fillsRunning.Load()))
		fills := set.Counter("dockercache_fills_total", "Images that were to be fetched, by how that ended.", "result")
		fills.Set(float64(m.fillsDone.Load()), "stocked")
		fills.Set(float64(m.fillsFailed.Load()), "failed")
		set.Counter("dockercache_fetched_bytes_total", "Bytes of layers that came from registries, of images that are not being fetched any more.").Set(float64(m.fetched.Load()))
	}
	w.Header().Set("Content-Type", metrics.ContentType)
	_, _ = set.WriteTo(w)
	return nil
}
