package history

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dockercache/dockercache/cache/timing"
)

// SummaryOptions of [Summarize]. The zero value of each field works.
type SummaryOptions struct {
	// Since is from when on records count. Older ones still say how fast registries are.
	Since time.Time
}

// A Report is what records say together.
type Report struct {
	All Use
	// Images, Hosts and Days are the same for each image, each host and each day in UTC, such
	// as 2006-01-02. Images and hosts are in the order of how many records they have, the most
	// first, and days in that of time.
	Images, Hosts, Days []Use
}

// A Use is what was done with an image, on a host, or on a day.
type Use struct {
	Name    string // "" for all
	Records int
	// First and Last are the times of the first and the last of these records.
	First, Last time.Time

	// Ways are what was done, in the order of their kinds and then of how often.
	Ways []Way
	// Loads is how many loads there were, Hits for how many of them the engine had the image,
	// or there was a tarball that could be loaded.
	Loads, Hits int

	// BytesFetched is what stocks and fills fetched, in all and by origin, the most first.
	BytesFetched int64
	Origins      []OriginBytes
	// BytesReused and BytesResumed are what they had already.
	BytesReused, BytesResumed int64
	// BytesStreamed is what engines were sent.
	BytesStreamed int64

	// Phases are where time went, the longest in all first.
	Phases []PhaseSeconds
	Saving Saving
}

// A Way is what was done to this outcome.
type Way struct {
	Kind    Kind
	Outcome string
	Count   int
	// Median and Mean are of the seconds in all.
	Median, Mean float64
	// Phases has the seconds in the mean of each phase, of the records that have phases. Nil
	// if none has.
	Phases map[timing.Phase]float64
}

// PhaseSeconds is how long a phase took.
type PhaseSeconds struct {
	Kind  Kind
	Phase timing.Phase
	// Count is how many records have the phase, Seconds how long it took in all of them, and
	// Median in one.
	Count           int
	Seconds, Median float64
}

// OriginBytes is what came from an origin.
type OriginBytes struct {
	Name  string
	Bytes int64
}

// A Saving is what loads saved against plain pulls, see the package's documentation.
type Saving struct {
	// Loads is how many loads were compared, and Seconds how long they took. For Unknown others
	// that succeeded there was nothing to compare with.
	Loads, Unknown int
	Seconds        float64
	// PullLeast and PullMost are between which seconds plain pulls would have taken.
	PullLeast, PullMost float64
	// RateOf are the hosts of the registries whose rates that is by, in order.
	RateOf []string
}

// Least returns the least seconds that were saved; below 0 if loads may have taken longer.
func (s *Saving) Least() float64 { return s.PullLeast - s.Seconds }

// Most returns the most seconds that were saved.
func (s *Saving) Most() float64 { return s.PullMost - s.Seconds }

// Summarize says what records mean. It is a pure function.
func Summarize(records []Record, o *SummaryOptions) *Report {
	if o == nil {
		o = &SummaryOptions{}
	}
	registries := ratesOf(records)
	var of []*Record
	for i := range records {
		if !records[i].Time.Before(o.Since) {
			of = append(of, &records[i])
		}
	}
	report := &Report{
		All:    summarize("", of, registries),
		Images: group(of, registries, func(r *Record) string { return r.Image }),
		Hosts:  group(of, registries, func(r *Record) string { return r.Host }),
		Days:   group(of, registries, func(r *Record) string { return r.Time.UTC().Format(time.DateOnly) }),
	}
	slices.SortStableFunc(report.Images, byCount)
	slices.SortStableFunc(report.Hosts, byCount)
	return report
}

func byCount(a, b Use) int { return cmp.Compare(b.Records, a.Records) }

// group summarizes the records of each name, in the order of the names.
func group(records []*Record, registries *rates, name func(*Record) string) []Use {
	by := map[string][]*Record{}
	for _, r := range records {
		by[name(r)] = append(by[name(r)], r)
	}
	uses := []Use{}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		uses = append(uses, summarize(name, by[name], registries))
	}
	return uses
}

func summarize(name string, records []*Record, registries *rates) Use {
	u := Use{Name: name, Records: len(records)}
	type way struct {
		kind    Kind
		outcome string
	}
	type phase struct {
		kind  Kind
		phase timing.Phase
	}
	ways, phases, origins, rateOf := map[way][]*Record{}, map[phase][]float64{}, map[string]int64{}, map[string]bool{}
	for _, r := range records {
		if u.First.IsZero() || r.Time.Before(u.First) {
			u.First = r.Time
		}
		if r.Time.After(u.Last) {
			u.Last = r.Time
		}
		w := way{r.Kind, r.Outcome}
		ways[w] = append(ways[w], r)
		for p, s := range r.Phases {
			phases[phase{r.Kind, p}] = append(phases[phase{r.Kind, p}], s)
		}
		for _, o := range r.Origins {
			u.BytesFetched = plus(u.BytesFetched, o.Bytes)
			origins[o.Name] = plus(origins[o.Name], o.Bytes)
		}
		u.BytesReused = plus(u.BytesReused, r.BytesReused)
		u.BytesResumed = plus(u.BytesResumed, r.BytesResumed)
		u.BytesStreamed = plus(u.BytesStreamed, r.BytesStreamed)
		if r.Kind == Load {
			u.Loads++
			if isHit(r) {
				u.Hits++
				u.Saving.add(r, registries, rateOf)
			}
		}
	}
	for w, of := range ways {
		u.Ways = append(u.Ways, newWay(w.kind, w.outcome, of))
	}
	slices.SortFunc(u.Ways, func(a, b Way) int {
		return cmp.Or(cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)), cmp.Compare(b.Count, a.Count), cmp.Compare(a.Outcome, b.Outcome))
	})
	for p, seconds := range phases {
		u.Phases = append(u.Phases, PhaseSeconds{p.kind, p.phase, len(seconds), sum(seconds), median(seconds)})
	}
	slices.SortFunc(u.Phases, func(a, b PhaseSeconds) int {
		return cmp.Or(cmp.Compare(b.Seconds, a.Seconds), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Phase, b.Phase))
	})
	for name, bytes := range origins {
		u.Origins = append(u.Origins, OriginBytes{name, bytes})
	}
	slices.SortFunc(u.Origins, func(a, b OriginBytes) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Name, b.Name)) })
	u.Saving.RateOf = slices.Sorted(maps.Keys(rateOf))
	return u
}

func newWay(kind Kind, outcome string, records []*Record) Way {
	w := Way{Kind: kind, Outcome: outcome, Count: len(records)}
	var seconds []float64
	with := 0
	for _, r := range records {
		seconds = append(seconds, r.Seconds)
		if len(r.Phases) > 0 {
			with++
		}
	}
	w.Median, w.Mean = median(seconds), sum(seconds)/float64(len(seconds))
	if with > 0 {
		w.Phases = map[timing.Phase]float64{}
	}
	for _, r := range records {
		for p, s := range r.Phases {
			w.Phases[p] += s / float64(with)
		}
	}
	return w
}

// isHit reports whether a load succeeded.
func isHit(r *Record) bool { return r.Outcome == Present || r.Outcome == Loaded || r.Outcome == Delta }

// add compares a load that succeeded with a plain pull, and adds the hosts whose rate that is by.
func (s *Saving) add(r *Record, registries *rates, rateOf map[string]bool) {
	least := registries.resolve
	most := least
	if r.Outcome != Present { // else nothing is fetched or unpacked
		rate, hosts, known := registries.of(r.Image)
		if !known || len(r.Phases) == 0 || r.Digest == "" {
			s.Unknown++
			return
		}
		for _, h := range hosts {
			rateOf[h] = true
		}
		engine := r.Phases[timing.Engine]
		least += float64(r.BytesStreamed)*rate.seconds/rate.bytes + engine
		most += float64(r.BytesStreamed)*rate.connected/rate.bytes + engine
	}
	s.Loads++
	s.Seconds += r.Seconds
	s.PullLeast += least
	s.PullMost += most
}

// rates are how fast registries were.
type rates struct {
	hosts   map[string]*connections
	all     connections
	resolve float64 // seconds, in the median
}

// connections add up what came from a registry, in which time.
type connections struct {
	bytes, seconds float64
	connected      float64 // seconds of each connection, together
}

func (c *connections) add(o Origin) {
	c.bytes += float64(o.Bytes)
	c.seconds += o.Seconds
	c.connected += o.Seconds * max(o.Connections, 1)
}

func ratesOf(records []Record) *rates {
	all := &rates{hosts: map[string]*connections{}}
	var resolves []float64
	for _, r := range records {
		if r.Kind != Stock {
			continue
		}
		if s, ok := r.Phases[timing.Resolve]; ok && r.Outcome != Failed {
			resolves = append(resolves, s)
		}
		for _, o := range r.Origins {
			host := hostOf(o.Name)
			if host == "" || o.Bytes == 0 || o.Seconds == 0 {
				continue
			}
			if all.hosts[host] == nil {
				all.hosts[host] = &connections{}
			}
			all.hosts[host].add(o)
			all.all.add(o)
		}
	}
	all.resolve = median(resolves)
	return all
}

// of returns how fast the registry of an image was, or where that is not known all registries,
// and which.
func (r *rates) of(image string) (rate connections, hosts []string, known bool) {
	if own := hostOf(image); r.hosts[own] != nil {
		return *r.hosts[own], []string{own}, true
	}
	return r.all, slices.Sorted(maps.Keys(r.hosts)), r.all.bytes > 0
}

// hostOf returns the host of a reference or a repository, as Docker reads it; "" for what is a
// path or the address of a bucket.
func hostOf(name string) string {
	if strings.HasPrefix(name, "/") || strings.HasPrefix(name, ".") || strings.Contains(name, "://") || name == "" {
		return ""
	}
	host, _, found := strings.Cut(name, "/")
	if !found || !strings.ContainsAny(host, ".:") && host != "localhost" || host == "docker.io" {
		return "index.docker.io"
	}
	return host
}

// plus adds numbers that are not below 0, as far as they go: records may be false.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func sum(all []float64) (s float64) {
	for _, v := range all {
		s += v
	}
	return s
}

// median returns the middle of numbers, or the mean of the two in the middle; 0 of none.
func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
