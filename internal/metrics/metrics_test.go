package metrics

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func text(t *testing.T, s *Set) string {
	t.Helper()
	var b strings.Builder
	n, err := s.WriteTo(&b)
	require.NoError(t, err)
	assert.EqualValues(t, b.Len(), n)
	return b.String()
}

func TestWriteTo(t *testing.T) {
	var s Set
	assert.Empty(t, text(t, &s))
	s.Gauge("b_images", "Images.").Set(3)
	requests := s.Counter("a_requests_total", "Answers.", "kind", "code")
	requests.Set(2, "manifests", "200")
	requests.Set(1, "blobs", "404")
	requests.Set(1, "blobs", "200")
	requests.Set(7, "blobs", "404")
	s.Counter("none_total", "Never counted.", "kind")
	up := s.Gauge("up", "Is it?", "of")
	up.SetBool(true, "a")
	up.SetBool(false, "b")
	at := s.Gauge("at_timestamp_seconds", "When.", "what")
	at.SetTime(time.Time{}, "never")
	at.SetTime(time.UnixMilli(1700000000250), "once")
	want := `# HELP b_images Images.
# TYPE b_images gauge
b_images 3
# HELP a_requests_total Answers.
# TYPE a_requests_total counter
a_requests_total{kind="blobs",code="200"} 1
a_requests_total{kind="blobs",code="404"} 7
a_requests_total{kind="manifests",code="200"} 2
# HELP none_total Never counted.
# TYPE none_total counter
# HELP up Is it?
# TYPE up gauge
up{of="a"} 1
up{of="b"} 0
# HELP at_timestamp_seconds When.
# TYPE at_timestamp_seconds gauge
at_timestamp_seconds{what="never"} 0
at_timestamp_seconds{what="once"} 1.70000000025e+09
`
	assert.Equal(t, want, text(t, &s))
	assert.Equal(t, want, text(t, &s), "writing changes nothing")
}

func TestValues(t *testing.T) {
	for want, value := range map[string]float64{
		"0": 0, "-1": -1, "0.25": 0.25, "1000000": 1e6, "27000000001": 27000000001, "1e+300": 1e300, "1e-09": 1e-9,
		"NaN": math.NaN(), "+Inf": math.Inf(1), "-Inf": math.Inf(-1),
	} {
		var s Set
		s.Gauge("g", "A gauge.").Set(value)
		assert.Contains(t, text(t, &s), "\ng "+want+"\n")
	}
}

// A value can contain anything that a file name can.
func TestEscaping(t *testing.T) {
	var s Set
	f := s.Gauge("g", "A \"gauge\",\n with \\ and \xff.", "image")
	for value, want := range map[string]string{
		"":                 ``,
		`a"b`:              `a\"b`,
		`a\b`:              `a\\b`,
		`a\`:               `a\\`,
		"a\nb":             `a\nb`,
		`a\nb`:             `a\\nb`,
		"a\r\tb\x00":       "a\r\tb\x00",
		"näme, {x=\"1\"} ": `näme, {x=\"1\"} `,
		"\uFFFD":           "\uFFFD",
		"a\xff\xfeb":       `a\\xff\\xfeb`,
		"a\xffb":           `a\\xffb`,
		"a\xfeb":           `a\\xfeb`,
		"\xe2\x82":         `\\xe2\\x82`, // half a character
	} {
		f.Set(1, value)
		assert.Contains(t, text(t, &s), "\ng{image=\""+want+"\"} 1\n")
	}
	assert.Len(t, f.samples, 13, "none replaces another")
	assert.Equal(t, 2+13, strings.Count(text(t, &s), "\n"))
	assert.True(t, strings.HasPrefix(text(t, &s), `# HELP g A "gauge",\n with \\ and \\xff.`+"\n"))
}

// What Prometheus would refuse to read, and what says its unit wrongly, is a fault of the
// program.
func TestNames(t *testing.T) {
	var s Set
	g := s.Gauge("g", "A gauge.", "of")
	for name, f := range map[string]func(){
		"counter without _total": func() { s.Counter("c", "") },
		"again":                  func() { s.Gauge("g", "") },
		"no name":                func() { s.Gauge("", "") },
		"a dash":                 func() { s.Gauge("g-h", "") },
		"a digit first":          func() { s.Gauge("1g", "") },
		"a label's colon":        func() { s.Gauge("h", "", "a:b") },
		"a label of Prometheus":  func() { s.Gauge("h", "", "__name__") },
		"no value":               func() { g.Set(1) },
		"two values":             func() { g.Set(1, "a", "b") },
	} {
		assert.Panics(t, f, name)
	}
	s.Gauge("h:i_j0", "", "_a0")
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dockercache.prom")
	for _, value := range []float64{1, 2} {
		var s Set
		s.Gauge("g", "A gauge.").Set(value)
		require.NoError(t, s.WriteFile(path))
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, text(t, &s), string(raw))
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, entries, 1)
	require.Error(t, new(Set).WriteFile(filepath.Join(path, "below")))
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestWriteToFails(t *testing.T) {
	var s Set
	s.Gauge("g", "A gauge.").Set(1)
	_, err := s.WriteTo(failing{})
	require.EqualError(t, err, "full")
}
