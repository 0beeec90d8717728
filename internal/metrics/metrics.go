// Package metrics writes the text format of Prometheus
// (https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format).
//
//	var s metrics.Set
//	s.Gauge("dockercache_images", "Images that are served.").Set(3)
//	sent := s.Counter("dockercache_sent_bytes_total", "Bytes of answers.", "kind")
//	sent.Set(1024, "blobs")
//	_, err := s.WriteTo(w)
//
// A [Set] is made again whenever it is written: who counts keeps the numbers. By convention a
// name says its unit, which is a base unit: _seconds and _bytes, and a point in time is
// _timestamp_seconds. Counters end in _total.
package metrics

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dockercache/dockercache/cache/atomicfile"
)

// ContentType is the header Content-Type of the format.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// A Set is families of metrics. The zero value is empty. It is not safe for concurrent use.
type Set struct {
	families []*Family
}

// A Family is the samples of one name, told apart by the values of their labels.
type Family struct {
	name, kind, help string
	labels           []string // names
	samples          []sample
}

type sample struct {
	labels []string // values
	value  float64
}

var (
	metricName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)
	labelName  = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
)

// Counter adds a family of numbers that only grow. It panics if its name does not end in
// _total, and where Gauge does.
func (s *Set) Counter(name, help string, labels ...string) *Family {
	if !strings.HasSuffix(name, "_total") {
		panic("metrics: the name of the counter " + name + " does not end in _total")
	}
	return s.add(name, "counter", help, labels)
}

// Gauge adds a family of numbers that grow and shrink. It panics if a name is not one of the
// format's, or if the Set has the family already.
func (s *Set) Gauge(name, help string, labels ...string) *Family {
	return s.add(name, "gauge", help, labels)
}

func (s *Set) add(name, kind, help string, labels []string) *Family {
	if !metricName.MatchString(name) {
		panic(fmt.Sprintf("metrics: %q is no name", name))
	}
	for _, label := range labels {
		if !labelName.MatchString(label) || strings.HasPrefix(label, "__") {
			panic(fmt.Sprintf("metrics: %s: %q is no name of a label", name, label))
		}
	}
	if slices.ContainsFunc(s.families, func(f *Family) bool { return f.name == name }) {
		panic("metrics: there is a " + name + " already")
	}
	f := &Family{name: name, kind: kind, help: help, labels: labels}
	s.families = append(s.families, f)
	return f
}

// Set sets the sample that has these values of the labels, in the order of the family's. It
// panics if they are more or fewer.
func (f *Family) Set(value float64, labels ...string) {
	if len(labels) != len(f.labels) {
		panic(fmt.Sprintf("metrics: %s has %d labels, not %d", f.name, len(f.labels), len(labels)))
	}
	values := make([]string, len(labels))
	for i, label := range labels {
		values[i] = toValid(label)
	}
	at, found := slices.BinarySearchFunc(f.samples, values, func(s sample, values []string) int {
		return slices.Compare(s.labels, values)
	})
	if !found {
		f.samples = slices.Insert(f.samples, at, sample{labels: values})
	}
	f.samples[at].value = value
}

// SetBool sets a sample to 1 for true, and to 0 for false.
func (f *Family) SetBool(value bool, labels ...string) {
	number := 0.0
	if value {
		number = 1
	}
	f.Set(number, labels...)
}

// SetTime sets a sample to a point in time, in seconds since 1970, and to 0 for the zero time.
func (f *Family) SetTime(at time.Time, labels ...string) {
	number := 0.0
	if !at.IsZero() {
		number = float64(at.UnixMilli()) / 1000
	}
	f.Set(number, labels...)
}

// toValid replaces bytes that are not UTF-8, which the format has no room for, by \xNN: what
// differs goes on to differ, since two samples with the same labels are an error.
func toValid(value string) string {
	if utf8.ValidString(value) {
		return value
	}
	var b strings.Builder
	for len(value) > 0 {
		r, size := utf8.DecodeRuneInString(value)
		if r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, `\x%02x`, value[0])
		} else {
			b.WriteString(value[:size])
		}
		value = value[size:]
	}
	return b.String()
}

var (
	helpEscaper  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	valueEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// WriteTo writes the families in the order in which they were added, and their samples in that
// of the labels' values. One without samples has its description all the same.
func (s *Set) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	for _, f := range s.families {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %[1]s %[3]s\n", f.name, helpEscaper.Replace(toValid(f.help)), f.kind)
		for _, sample := range f.samples {
			b.WriteString(f.name)
			for i, label := range f.labels {
				before := ","
				if i == 0 {
					before = "{"
				}
				fmt.Fprintf(&b, `%s%s="%s"`, before, label, valueEscaper.Replace(sample.labels[i]))
			}
			if len(f.labels) > 0 {
				b.WriteByte('}')
			}
			fmt.Fprintf(&b, " %s\n", format(sample.value))
		}
	}
	return b.WriteTo(w)
}

// format writes whole numbers without an exponent, for people. NaN, +Inf and -Inf are called
// what the format calls them.
func format(value float64) string {
	if value == math.Trunc(value) && math.Abs(value) < 1<<53 {
		return strconv.FormatFloat(value, 'f', -1, 64)
	}
	return strconv.FormatFloat(value, 'g', -1, 64)
}

// WriteFile writes the file at path, such as one for the textfile collector of node_exporter,
// which reads files that end in .prom. At every moment it is what it was, or whole; all may
// read it, as far as the umask allows.
func (s *Set) WriteFile(path string) error {
	return atomicfile.WriteFile(path, 0o666, func(f *os.File) error {
		_, err := s.WriteTo(f)
		return err
	})
}
