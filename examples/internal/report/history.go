package report

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"maps"
	"path/filepath"
	"sync"
	"syscall"

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
	phases := Phases{}
	for p, d := range r.Spent() {
		phases[p] = round(d)
	}
	return phases
}

// PhaseNames are the names of all phases, in the order in which charts have them.
var PhaseNames = []timing.Phase{
	timing.Resolve, timing.Look, timing.Lock, timing.FirstByte, timing.Fetch, timing.Copy, timing.Hash, timing.Send, timing.Publish,
	timing.Find, timing.Stream, timing.Engine, timing.Verify, timing.Clone, timing.Mount,
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
		h.program, h.out, h.log = program, out, history.Open(dir, nil)
	}
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
