package history

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/internal/strictjson"
)

// A Kind is what was done with an image.
type Kind string

// The kinds.
const (
	// Stock: a tarball was written, or was found to be up to date.
	Stock Kind = "stock"
	// Load: an engine got the image, or had it.
	Load Kind = "load"
	// Clone: an engine got a data root in which the image is.
	Clone Kind = "clone"
	// Fill: a server fetched the image since it was asked for.
	Fill Kind = "fill"
)

// Outcomes of loads that [Summarize] knows. Those of other kinds, and others, are only counted.
const (
	Present = "present"      // the engine had the image
	Loaded  = "loaded"       // it was sent the whole archive
	Delta   = "loaded-delta" // it was sent less, since it already had layers
	Missing = "missing"      // there is no tarball
	Failed  = "failed"
)

// version is that of records. Others are not read.
const version = 1

// A Record says what was done with one image. Of all fields only Kind and Outcome must be set.
type Record struct {
	Version int       `json:"v"`       // set by [Log.Append]
	Time    time.Time `json:"time"`    // at which it ended; zero: when it is appended
	Host    string    `json:"host"`    // "": the name of this one
	Program string    `json:"program"` // that did it
	Kind    Kind      `json:"kind"`
	Outcome string    `json:"outcome"` // of lower case letters, digits and "-", as programs print it

	Image   string `json:"image"`   // reference, as it was asked for
	Tarball string `json:"tarball"` // name, without a path
	Digest  string `json:"digest"`  // of the manifest; "" if it is not known
	Engine  string `json:"engine"`  // kind, for loads and clones

	BytesTotal    int64    `json:"bytes_total"`    // of the tarball
	BytesReused   int64    `json:"bytes_reused"`   // of layers, that were there
	BytesResumed  int64    `json:"bytes_resumed"`  // of layers, that an earlier attempt had left
	BytesStreamed int64    `json:"bytes_streamed"` // to the engine
	Origins       []Origin `json:"origins"`        // what was fetched

	Seconds float64                  `json:"seconds"` // in all
	Phases  map[timing.Phase]float64 `json:"phases"`  // of these, in each phase; empty if they are not known
	// Error is why it failed. [Log.Append] cuts it. There must be no secret in it.
	Error string `json:"error"`
}

// An Origin is where layers were fetched from.
type Origin struct {
	Name        string  `json:"name"` // repository, or the path or address of a store
	Bytes       int64   `json:"bytes"`
	Seconds     float64 `json:"seconds"`     // with at least one connection open
	Connections float64 `json:"connections"` // in that time, in the mean
}

// What a record can have. What is longer is cut when it is written.
const (
	maxLine    = 16 << 10
	maxError   = 200
	maxText    = 512 // bytes of another text
	maxWord    = 32
	maxOrigins = 16
	maxPhases  = 32
	maxBytes   = 1 << 60
	maxSeconds = 1e9 // 30 years
)

// word is the form of outcomes and phases.
var word = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)

func isWord(text string) bool { return len(text) <= maxWord && word.MatchString(text) }

var kinds = []Kind{Stock, Load, Clone, Fill}

// texts returns the texts that may be anything.
func (r *Record) texts() []*string {
	return []*string{&r.Host, &r.Program, &r.Image, &r.Tarball, &r.Digest, &r.Engine}
}

// line returns a record as it is written, with the line feed. What is too long is cut, and what
// is no sensible number is 0.
func (r Record) line(now time.Time) ([]byte, error) {
	r.Version = version
	if !slices.Contains(kinds, r.Kind) || !isWord(r.Outcome) {
		return nil, fmt.Errorf("record of kind %.40q and outcome %.40q: there are no such", r.Kind, r.Outcome)
	}
	if r.Time.IsZero() {
		r.Time = now
	}
	r.Time = r.Time.UTC().Truncate(time.Millisecond)
	if r.Host == "" {
		r.Host, _ = os.Hostname()
	}
	for _, text := range r.texts() {
		*text = cut(*text, maxText)
	}
	r.Error = cut(r.Error, maxError)
	for _, n := range r.counts() {
		*n = min(max(*n, 0), maxBytes)
	}
	r.Seconds = sensible(r.Seconds)
	phases := map[timing.Phase]float64{}
	for _, p := range slices.Sorted(maps.Keys(r.Phases)) {
		if isWord(string(p)) && len(phases) < maxPhases {
			phases[p] = sensible(r.Phases[p])
		}
	}
	r.Phases = phases
	origins := slices.Clone(r.Origins)
	slices.SortStableFunc(origins, func(a, b Origin) int { return cmp.Compare(b.Bytes, a.Bytes) })
	r.Origins = append([]Origin{}, origins[:min(len(origins), maxOrigins)]...)
	for i, o := range r.Origins {
		r.Origins[i] = Origin{cut(o.Name, maxText), min(max(o.Bytes, 0), maxBytes), sensible(o.Seconds), sensible(o.Connections)}
	}
	for {
		raw, err := json.Marshal(r)
		if err != nil || len(raw) < maxLine {
			return append(raw, '\n'), err
		}
		if len(r.Origins) > 0 { // escapes may be six times as long as what they stand for
			r.Origins = r.Origins[:len(r.Origins)/2]
			continue
		}
		for _, text := range r.texts() {
			*text = cut(*text, maxText/4)
		}
	}
}

// counts returns the numbers of bytes.
func (r *Record) counts() []*int64 {
	return []*int64{&r.BytesTotal, &r.BytesReused, &r.BytesResumed, &r.BytesStreamed}
}

// cut returns a text of no more than most bytes, without half a character.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return strings.Clone(text[:most])
}

// sensible rounds to the millisecond, which is all that records have.
func sensible(v float64) float64 {
	if !(v >= 0) { // NaN too
		return 0
	}
	return math.Round(min(v, maxSeconds)*1000) / 1000
}

// Why a line is no record of this version.
var (
	errVersion = errors.New("a record of another version")
	errFuture  = errors.New("a record of a time to come")
)

// clockSkew is how far the clocks of hosts may be apart.
const clockSkew = 24 * time.Hour

// parse reads a line.
func parse(line []byte, now time.Time) (Record, error) {
	var r Record
	err := strictjson.Unmarshal(line, &r)
	if err != nil || r.Version != version {
		var is struct { // another version's fields may have other types
			V *int `json:"v"`
		}
		if json.Unmarshal(line, &is) == nil && is.V != nil && *is.V != version {
			return Record{}, errVersion
		}
		return Record{}, cmp.Or(err, errors.New("no version"))
	}
	return r, r.check(now)
}

// check returns what is wrong with a record that was read.
func (r *Record) check(now time.Time) error {
	switch {
	case !slices.Contains(kinds, r.Kind):
		return fmt.Errorf("unknown kind %.40q", r.Kind)
	case !isWord(r.Outcome):
		return fmt.Errorf("outcome %.40q", r.Outcome)
	case r.Time.Year() < 2000 || r.Time.Year() > 9999:
		return fmt.Errorf("time %v", r.Time)
	case r.Time.After(now.Add(clockSkew)):
		return errFuture
	case len(r.Origins) > maxOrigins || len(r.Phases) > maxPhases:
		return errors.New("too many origins or phases")
	}
	seconds := []float64{r.Seconds}
	counts := []int64{}
	for _, n := range r.counts() {
		counts = append(counts, *n)
	}
	for _, o := range r.Origins {
		seconds, counts = append(seconds, o.Seconds, o.Connections), append(counts, o.Bytes)
	}
	for p, s := range r.Phases {
		if !isWord(string(p)) {
			return fmt.Errorf("phase %.40q", p)
		}
		seconds = append(seconds, s)
	}
	for _, s := range seconds {
		if !(s >= 0 && s <= maxSeconds) {
			return fmt.Errorf("%v seconds", s)
		}
	}
	for _, n := range counts {
		if n < 0 || n > maxBytes {
			return fmt.Errorf("%d bytes", n)
		}
	}
	return nil
}
