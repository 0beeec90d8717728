package report

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dockercache/dockercache/artifacts/workflow"
	"github.com/dockercache/dockercache/cache/history"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/examples/internal/cli"
)

// Phases are the seconds of each phase, in records. Nil is {} in JSON.
type Phases map[timing.Phase]float64

// MarshalJSON implements [json.Marshaler].
func (p Phases) MarshalJSON() ([]byte, error) {
	if p == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(map[timing.Phase]float64(p))
}

// end ends the last phase, and returns how long each took.
func end(r *timing.Recorder) Phases {
	timing.End(r)
	return PhasesOf(r.Spent())
}

// PhasesOf makes them of durations.
func PhasesOf(spent map[timing.Phase]time.Duration) Phases {
	phases := Phases{}
	for p, d := range spent {
		phases[p] = round(d)
	}
	return phases
}

// PhaseNames are the names of all phases, in the order in which charts have them.
var PhaseNames = []timing.Phase{
	timing.Resolve, timing.Look, timing.Lock, timing.FirstByte, timing.Fetch, timing.Copy, timing.Hash, timing.Send, timing.Publish,
	timing.Find, timing.Stream, timing.Engine, timing.Verify, timing.Clone, timing.Mount,
}

// summary is the phases for a summary, in the order of [PhaseNames].
func (p Phases) summary() (all []workflow.SummaryPhase) {
	for _, n := range PhaseNames {
		if seconds, ok := p[n]; ok {
			all = append(all, workflow.SummaryPhase{Name: strings.ReplaceAll(string(n), "_", " "), Duration: time.Duration(seconds * float64(time.Second))})
		}
	}
	return all
}

// Record is what the log of a directory has of a stock.
func (r *Stocked) Record() history.Record {
	h := history.Record{
		Kind: history.Stock, Outcome: r.Outcome, Image: r.Image, Tarball: name(r.Tarball), Digest: r.Digest, Error: r.Error,
		BytesTotal: r.BytesTotal, BytesReused: r.BytesReused, BytesResumed: r.BytesResumed, Seconds: r.Seconds, Phases: maps.Clone(r.Phases),
	}
	for _, s := range r.Sources {
		if s.Bytes > 0 {
			h.Origins = append(h.Origins, history.Origin{Name: s.Repository, Bytes: s.Bytes, Seconds: s.Seconds, Connections: s.ConnectionsMean})
		}
	}
	return h
}

// Record is what the log of a directory has of a load.
func (r *Loaded) Record() history.Record {
	return history.Record{
		Kind: history.Load, Outcome: r.Outcome, Image: r.Image, Tarball: name(r.Tarball), Digest: r.Digest, Engine: r.Engine, Error: r.Error,
		BytesTotal: r.BytesTotal, BytesStreamed: r.BytesStreamed, Seconds: r.Seconds, Phases: maps.Clone(r.Phases),
	}
}

// name returns the last part of a path or an address; "" of none.
func name(path string) string {
	if path == "" {
		return ""
	}
	return filepath.Base(path)
}

// History appends to the log of what was done, as flags say. The zero value does nothing. It is
// safe for concurrent use.
type History struct {
	on  bool
	dir string

	program string
	log     *history.Log // nil: nothing is recorded
	at      string       // its directory
	out     *cli.Output
	warn    sync.Once
}

// Register defines the flags.
func (h *History) Register(f *flag.FlagSet) {
	f.BoolVar(&h.on, "history", true, "record what was done, in DIR/.history.UID.jsonl, for cache-admin report")
	f.StringVar(&h.dir, "history-dir", "", "record it in another directory, `DIR`; in a bucket nothing is recorded without it (default that of -dir)")
}

// Check returns what is wrong with the flags together.
func (h *History) Check() error {
	if !h.on && h.dir != "" {
		return errors.New("-history-dir is where -history records, which is false: leave one out")
	}
	return nil
}

// Open makes Append record what a program does, by default in dir; "" is none.
func (h *History) Open(program, dir string, out *cli.Output) {
	if h.dir != "" {
		dir = h.dir
	}
	if h.on && dir != "" {
		h.program, h.out, h.log, h.at = program, out, history.Open(dir, nil), dir
	}
}

// Saved says what loads have saved in the last days, by the log; "" if it does not know, or the
// log is not read.
func (h *History) Saved(days int) string {
	if h.log == nil {
		return ""
	}
	now := time.Now()
	since := now.AddDate(0, 0, -days)
	records, _, err := history.Read(h.at, since.AddDate(0, 0, -days)) // older ones say how fast registries are
	if err != nil {
		return ""
	}
	all := history.Summarize(records, &history.SummaryOptions{Since: since}).All
	s := all.Saving
	if s.Loads == 0 {
		return ""
	}
	return fmt.Sprintf("In the last %d days %d loads that could be compared took %s; plain pulls would have taken %s to %s. See cache-admin report.",
		days, s.Loads, about(s.Seconds), about(s.PullLeast), about(s.PullMost))
}

// about is a duration in seconds for people.
func about(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// Append records what was done with one image. Where that fails, a warning says so once; none
// where this user may only read: that is how others share a directory.
func (h *History) Append(ctx context.Context, r history.Record) {
	if h == nil || h.log == nil {
		return
	}
	r.Program = h.program
	err := h.log.Append(ctx, r)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
		h.out.Log.Debug("what was done is not recorded", "error", err)
	default:
		h.warn.Do(func() { h.out.Warn("what was done is not recorded: " + err.Error()) })
	}
}
