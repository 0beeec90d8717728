package server

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// metrics are what a server has done since it was made.
type metrics struct {
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

// ReadFrom leaves it to the response how a body is copied.
func (c *counter) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(c.ResponseWriter, r)
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
func (m *metrics) count(c *counter, kind string) {
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

// serveMetrics serves the metrics
// (https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format). They have
// no names of images.
func (s *server) serveMetrics(w http.ResponseWriter, r *http.Request) error {
	known, err := s.catalog.images(r.Context(), true)
	if err != nil {
		return err
	}
	var text strings.Builder
	head := func(name, kind, help string) {
		fmt.Fprintf(&text, "# HELP dockercache_%s %s\n# TYPE dockercache_%s %s\n", name, help, name, kind)
	}
	one := func(name, kind, help string, value int64) {
		head(name, kind, help)
		fmt.Fprintf(&text, "dockercache_%s %d\n", name, value)
	}
	m := &s.metrics
	m.mu.Lock()
	requests, sent := maps.Clone(m.requests), maps.Clone(m.sent)
	m.mu.Unlock()
	one("images", "gauge", "Images that are served.", int64(len(known.all)))
	one("skipped_files_total", "counter", "Files that were found not to be served.", m.skipped.Load())
	head("requests_total", "counter", "Answers, by what was asked for and the status.")
	for _, a := range slices.SortedFunc(maps.Keys(requests), func(a, b answered) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	}) {
		fmt.Fprintf(&text, "dockercache_requests_total{kind=%q,code=\"%d\"} %d\n", a.kind, a.code, requests[a])
	}
	head("sent_bytes_total", "counter", "Bytes of answers, by what was asked for.")
	for _, kind := range slices.Sorted(maps.Keys(sent)) {
		fmt.Fprintf(&text, "dockercache_sent_bytes_total{kind=%q} %d\n", kind, sent[kind])
	}
	if s.filler != nil {
		one("fills_running", "gauge", "Images that are being fetched from their own registries.", m.fillsRunning.Load())
		head("fills_total", "counter", "Images that were to be fetched, by how that ended.")
		fmt.Fprintf(&text, "dockercache_fills_total{result=\"stocked\"} %d\n", m.fillsDone.Load())
		fmt.Fprintf(&text, "dockercache_fills_total{result=\"failed\"} %d\n", m.fillsFailed.Load())
		one("fetched_bytes_total", "counter", "Bytes of layers that came from registries, of images that are not being fetched any more.", m.fetched.Load())
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = io.WriteString(w, text.String())
	return nil
}
