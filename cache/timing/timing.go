package timing

import (
	"maps"
	"sync"
	"time"
)

// A Phase is what a piece of work does. Records and metrics contain its name.
type Phase string

// The phases of stocking an image, and of filling a server's directory.
const (
	// Resolve: a registry is asked for the digest, the manifest, the config.
	Resolve Phase = "resolve"
	// Look: it is looked at what is there.
	Look Phase = "look"
	// Lock: another process, or another image of this one, does the same, and is waited for.
	Lock Phase = "lock"
	// FirstByte: layers were asked for, and nothing of them has come.
	FirstByte Phase = "first_byte"
	// Fetch: bytes of layers come from the source. Others are hashed, copied and sent meanwhile.
	Fetch Phase = "fetch"
	// Copy: nothing has to come from the source any more; layers are cloned or copied from other
	// tarballs.
	Copy Phase = "copy"
	// Hash: all bytes are there, and not all of them are verified.
	Hash Phase = "hash"
	// Send: all that was fetched is verified, and the rest of it is sent to a bucket's server.
	Send Phase = "send"
	// Publish: the tarball is flushed and gets its name.
	Publish Phase = "publish"
)

// The phases of a load into an engine. It may wait too, see [Lock].
const (
	// Find: the engine is asked what it has.
	Find Phase = "find"
	// Stream: the engine reads what it is sent, or pulls.
	Stream Phase = "stream"
	// Engine: the engine has all that it was sent, and unpacks. An engine that pulls
	// unpacks while it pulls, and asks for more: then both phases alternate.
	Engine Phase = "engine"
	// Verify: the engine is asked whether it has the image, and can use it.
	Verify Phase = "verify"
)

// The phases of giving an engine a data root.
const (
	// Clone: the template is cloned or copied.
	Clone Phase = "clone"
	// Mount: the clone is checked and mounted.
	Mount Phase = "mount"
)

// An Observer is notified of what a piece of work does. Begin is called when a phase begins, with the
// time, which has a monotonic reading; the phase before ends then. The empty phase is none: the
// work has ended, or is paused. Begin is called by one goroutine at a time for each piece of
// work, must be quick, and must not call back into what calls it.
type Observer interface {
	Begin(p Phase, at time.Time)
}

// Begin tells an observer that a phase begins now. Of a nil observer it does nothing.
func Begin(o Observer, p Phase) {
	if o != nil {
		o.Begin(p, time.Now())
	}
}

// End tells an observer that the phase has ended. Of a nil observer it does nothing.
func End(o Observer) { Begin(o, "") }

// A Recorder is an [Observer] that adds up how long each phase took. The zero value is ready
// for use. It is for one piece of work, and safe for concurrent use.
type Recorder struct {
	mu    sync.Mutex
	phase Phase
	since time.Time
	spent map[Phase]time.Duration
}

// Begin implements [Observer].
func (r *Recorder) Begin(p Phase, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.phase != "" {
		if r.spent == nil {
			r.spent = map[Phase]time.Duration{}
		}
		r.spent[r.phase] += max(at.Sub(r.since), 0)
	}
	r.phase, r.since = p, at
}

// Spent returns how long each phase took that has ended, without those that were never begun.
func (r *Recorder) Spent() map[Phase]time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spent == nil {
		return map[Phase]time.Duration{}
	}
	return maps.Clone(r.spent)
}
