package cache

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/fetch"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
)

// An assembly brings the layers of one tarball into its partial file, each from the
// place that moves the fewest bytes: what an earlier attempt left; a tarball in the
// directory, cloned if possible, else copied; another image that this process is
// stocking; the source. It is the [fetch.Events] of its fetches.
type assembly struct {
	dir      *Dir
	partial  *partialFile
	layout   *tarball.Layout
	src      tarball.Source
	progress func(tarball.Progress)
	observer timing.Observer
	warn     func(msg string, args ...any)
	watch    watch

	trust      bool // what is recorded as verified is not hashed again
	resumed    bool // an earlier attempt left something
	downloaded int64
	sources    []tarball.SourceUse
	verified   map[v1.Hash]bool
	sure       map[v1.Hash][]fetch.Local // layers that can be copied from where they are known to be right
	endSure    func()                    // closes these files
	leading    map[v1.Hash]*transfer     // that others may wait for
	ready      map[v1.Hash]*transfer     // of others, with a file to take the layer from
	tried      map[v1.Hash]bool          // was found elsewhere in the middle of a fetch
	endLocal   func()                    // closes what the present fetch copies from
	begin      func() *Incoming          // is called when the layers begin to come; nil: nobody reads them
	incoming   *Incoming                 // what it returned

	mu      sync.Mutex
	since   time.Time         // when the first of the bytes was hashed
	here    map[v1.Hash]bool  // verified, in the present fetch too
	left    map[v1.Hash]int64 // by an earlier attempt
	reused  map[v1.Hash]reuse
	damaged []string // which files had wrong bytes
}

// A reuse is a layer that came from another tarball.
type reuse struct {
	cloned, copied int64
	from           string // path
}

func newAssembly(ctx context.Context, d *Dir, p *partialFile, layout *tarball.Layout, src tarball.Source, progress func(tarball.Progress), trust bool, w watch) *assembly {
	a := &assembly{
		watch: w, here: map[v1.Hash]bool{}, tried: map[v1.Hash]bool{}, dir: d, partial: p, layout: layout, src: src, progress: progress, resumed: len(p.done) > 0,
		trust: trust, since: d.now(), endSure: func() {},
		verified: map[v1.Hash]bool{}, leading: map[v1.Hash]*transfer{}, ready: map[v1.Hash]*transfer{}, reused: map[v1.Hash]reuse{}, left: map[v1.Hash]int64{},
	}
	for layer, done := range p.done {
		for _, d := range done {
			a.left[layer] += d.To - d.From
		}
	}
	a.warn = func(msg string, args ...any) { d.log.WarnContext(ctx, msg, args...) }
	if p.done == nil {
		p.done = map[v1.Hash][]sys.Interval{}
	}
	return a
}

// run fills the partial file and verifies all of it.
func (a *assembly) run(ctx context.Context) error {
	defer a.leaveReady()
	todo := a.cloneVerified(ctx, a.layout.Layers())
	defer func() { a.endSure() }()
	for first := true; first || len(todo) > 0; first = false {
		// Joining comes before looking at the directory: a transfer that was released
		// in between is in a tarball by then.
		now, later := a.join(todo)
		err := a.bring(ctx, now)
		a.leaveReady()
		if errors.Is(err, errBrought) {
			for _, l := range later {
				a.dir.inflight.leave(l.transfer)
			}
			todo = slices.DeleteFunc(slices.Clone(todo), func(l tarball.Segment) bool { return a.verified[l.Blob] })
			continue
		}
		if todo, err = a.await(ctx, later, err); err != nil {
			return err
		}
	}
	return nil
}

// cloneVerified clones layers from tarballs in which they are known to be right, and returns
// those that are left to be brought. What an earlier attempt has left of them does not
// matter: to hash that would take longer. Where nothing can be cloned they are copied later,
// while others are fetched, and nobody waits for another image to bring them.
func (a *assembly) cloneVerified(ctx context.Context, layers []tarball.Segment) (todo []tarball.Segment) {
	if !a.trust {
		return layers
	}
	timing.Begin(a.observer, timing.Copy)
	a.sure, a.endSure = a.dir.findVerified(layers, a.relied)
	for _, l := range layers {
		for _, from := range a.sure[l.Blob] {
			if a.clone(ctx, l, from) {
				a.verified[l.Blob] = from.Verified() // otherwise it is there, and will be hashed
				delete(a.sure, l.Blob)
				break
			}
		}
		if !a.verified[l.Blob] {
			todo = append(todo, l)
		}
	}
	return todo
}

// relied is called when a layer is not hashed, since it was at that time where it comes from.
func (a *assembly) relied(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at.Before(a.since) {
		a.since = at
	}
}

// An awaited layer is in flight for another image.
type awaited struct {
	layer    tarball.Segment
	transfer *transfer
}

// join decides which layers are to be brought now, and which others are bringing.
func (a *assembly) join(layers []tarball.Segment) (now []tarball.Segment, later []awaited) {
	for _, l := range layers {
		if t := a.leading[l.Blob]; t != nil && !a.here[l.Blob] && a.dir.inflight.use(t, a.watch.flow) {
			a.ready[l.Blob] = t
		}
		if a.leading[l.Blob] != nil || a.ready[l.Blob] != nil || a.sure[l.Blob] != nil || len(a.gaps(l)) == 0 {
			now = append(now, l)
		} else if t, leads := a.dir.inflight.join(l.Blob, a.watch.flow); leads {
			a.leading[l.Blob] = t
			now = append(now, l)
		} else {
			later = append(later, awaited{l, t})
		}
	}
	return now, later
}

// await waits for one of the layers that others are bringing, or until this image may bring
// one as well, unless something has failed. It returns the layers that are still to be
// brought: those that are complete by then, which are taken from there, and the rest.
func (a *assembly) await(ctx context.Context, later []awaited, failed error) (todo []tarball.Segment, err error) {
	if err = failed; err == nil && len(later) > 0 {
		timing.Begin(a.observer, timing.Lock)
		err = a.dir.inflight.wait(ctx, later)
	}
	for _, l := range later {
		if l.transfer.isComplete() {
			a.ready[l.layer.Blob] = l.transfer
		} else {
			a.dir.inflight.leave(l.transfer)
		}
		todo = append(todo, l.layer)
	}
	return todo, err
}

// leaveReady gives up the files that others have brought layers into.
func (a *assembly) leaveReady() {
	for layer, t := range a.ready {
		a.dir.inflight.leave(t)
		delete(a.ready, layer)
	}
}

// release ends all transfers that this assembly leads. It is called when the tarball
// is published, or will not be.
func (a *assembly) release() {
	for layer, t := range a.leading {
		a.dir.inflight.release(layer, t, a.watch.flow)
	}
}

// bring brings layers that no other image is bringing.
func (a *assembly) bring(ctx context.Context, layers []tarball.Segment) error {
	search := slices.DeleteFunc(a.missing(layers), func(l tarball.Segment) bool { return a.ready[l.Blob] != nil })
	local, end := a.dir.findLayers(search)
	// Not longer than it is needed: open tarballs are in use, and keep their space.
	sure, endSure := a.sure, a.endSure
	a.sure, a.endSure = nil, func() {}
	a.endLocal = sync.OnceFunc(func() { end(); endSure() })
	defer a.endLocal()
	for layer, from := range sure {
		local[layer] = append(from, slices.DeleteFunc(local[layer], func(l fetch.Local) bool { return l.Name == from[0].Name })...)
	}
	for _, l := range layers {
		if t := a.ready[l.Blob]; t != nil {
			local[l.Blob] = []fetch.Local{{R: t.file, Offset: t.offset, Name: t.file.Name()}}
		}
	}
	if err := a.prepare(ctx, layers, local); err != nil {
		return err
	}
	missing := a.missing(layers)
	for layer := range local {
		if !slices.ContainsFunc(missing, func(l tarball.Segment) bool { return l.Blob == layer }) {
			delete(local, layer) // cloned
		}
	}
	if len(local) == 0 {
		a.endLocal()
	}
	return a.fetch(ctx, layers, local)
}

// missing returns the layers that are not complete in the partial file.
func (a *assembly) missing(layers []tarball.Segment) []tarball.Segment {
	return slices.DeleteFunc(slices.Clone(layers), func(l tarball.Segment) bool { return len(a.gaps(l)) == 0 })
}

// gaps returns which bytes of a layer the partial file lacks.
func (a *assembly) gaps(l tarball.Segment) []sys.Interval {
	return sys.Gaps(l.Length, a.partial.done[l.Blob])
}

// prepare clones what tarballs in the directory have, and makes room for the rest.
func (a *assembly) prepare(ctx context.Context, layers []tarball.Segment, local map[v1.Hash][]fetch.Local) error {
	timing.Begin(a.observer, timing.Copy)
	for _, l := range a.missing(layers) {
		for _, from := range local[l.Blob] {
			if a.clone(ctx, l, from) {
				break
			}
		}
	}
	var ranges []sys.Interval // of the file
	need := -a.spare()
	for _, l := range a.missing(layers) {
		for _, g := range a.gaps(l) {
			need += g.To - g.From
			ranges = append(ranges, sys.Interval{From: l.Offset + g.From, To: l.Offset + g.To})
		}
	}
	if err := checkFree(a.partial.file, a.dir.path, need); err != nil {
		return err
	}
	if err := sys.Reserve(a.partial.file, ranges); err != nil {
		return &sys.WriteError{Err: err}
	}
	return nil
}

// clone takes a layer where that costs neither time nor space.
func (a *assembly) clone(ctx context.Context, l tarball.Segment, from fetch.Local) bool {
	src := sys.FileOf(from.R)
	n := sys.CloneRange(a.partial.file, l.Offset, src, from.Offset, l.Length)
	if n == 0 {
		return false
	}
	rest := l.Length - n // less than a block
	if sys.ReadAndWrite(ctx, a.partial.file, l.Offset+n, src, from.Offset+n, rest) != nil {
		return false // whatever it was shows again when the layer is fetched
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.left, l.Blob)
	a.reused[l.Blob] = reuse{cloned: n, copied: rest, from: from.Name}
	a.partial.done[l.Blob] = []sys.Interval{{From: 0, To: l.Length}}
	a.partial.journal.Add(l.Blob, 0, l.Length)
	return true
}

// spare returns how many bytes of the disk the partial file has beyond what is
// done: what an earlier attempt had reserved.
func (a *assembly) spare() int64 {
	info, err := a.partial.file.Stat()
	if err != nil {
		return 0
	}
	spare := sys.Allocated(info)
	for _, done := range a.partial.done {
		for _, d := range done {
			spare -= d.To - d.From
		}
	}
	return max(spare, 0)
}

// fetch copies or fetches what is still missing of some layers and verifies them.
func (a *assembly) fetch(ctx context.Context, layers []tarball.Segment, local map[v1.Hash][]fetch.Local) error {
	before := tarball.Progress{Downloaded: a.downloaded}
	for _, l := range a.layout.Layers() {
		if slices.ContainsFunc(layers, func(now tarball.Segment) bool { return now.Blob == l.Blob }) {
			continue
		}
		before.Total += l.Length
		if a.verified[l.Blob] {
			before.Done += l.Length
		}
	}
	before.Reused = max(before.Done-before.Downloaded, 0)
	sys.AtStep("write")
	a.beginIncoming()
	flow := a.watch.flow
	ctx, end := a.watched(ctx, slices.DeleteFunc(a.missing(layers), func(l tarball.Segment) bool { return len(local[l.Blob]) > 0 }))
	got, err := a.dir.fetcher.Fetch(ctx, fetch.Job{
		Sink: measuredFile{fetch.File{File: a.partial.file}, flow, a.incoming}, Layout: a.layout, Source: flow.measured(a.src),
		Layers: append([]tarball.Segment{}, layers...), Have: a.partial.done, Local: local,
		Journal: a.partial.journal, Events: a, Observer: a.observer, Before: before,
		Progress: func(p tarball.Progress) {
			flow.lacking.Store(p.Total-p.Done > before.Total-before.Done)
			if a.progress != nil {
				a.progress(p)
			}
		},
	})
	why := end()
	a.downloaded += got.Downloaded
	a.sources = addUses(a.sources, got.Sources)
	if errors.Is(why, errBrought) {
		// What has come is in the journal, as for the next attempt.
		if done, _ := readJournal(a.partial.log.Name(), a.layout); done != nil {
			a.partial.done = done
		}
	}
	for _, l := range layers {
		if err == nil || a.here[l.Blob] {
			a.verified[l.Blob] = true
			a.partial.done[l.Blob] = []sys.Interval{{From: 0, To: l.Length}}
		}
	}
	if err != nil {
		return cmp.Or(why, err)
	}
	return nil
}

// beginIncoming lets others read the layers from now on.
func (a *assembly) beginIncoming() {
	if a.begin == nil {
		return
	}
	a.incoming = a.begin()
	a.begin = nil
	if a.incoming == nil {
		return
	}
	for layer := range a.verified {
		a.incoming.complete(layer)
	}
}

// Copied implements [fetch.Events].
func (a *assembly) Copied(layer v1.Hash, from fetch.Local, n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, name := a.reused[layer], from.Name
	if r.copied > 0 && r.from != name { // of several: none can be blamed
		name = ""
	}
	a.reused[layer] = reuse{copied: r.copied + n, from: name}
	a.watch.flow.other.Add(n)
}

// Unreadable implements [fetch.Events].
func (a *assembly) Unreadable(layer v1.Hash, from fetch.Local, err error) {
	a.warn("a layer cannot be read where it is", "layer", layer.String(), "file", from.Name, "error", err)
}

// AllCopied implements [fetch.Events].
func (a *assembly) AllCopied() { a.endLocal() }

// Restarted implements [fetch.Events].
func (a *assembly) Restarted(layer v1.Hash) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.reused, layer)
	delete(a.left, layer)
	a.incoming.restarted(layer)
}

// Damaged implements [fetch.Events].
func (a *assembly) Damaged(layer v1.Hash) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, ok := a.reused[layer]
	if !ok {
		return
	}
	delete(a.reused, layer)
	if l, _ := a.layout.Layer(layer); r.from == "" || r.cloned+r.copied < l.Length { // an earlier attempt left the rest, and may be the one that is wrong
		a.warn("a layer that was copied in part is damaged, it is fetched again", "layer", layer.String(), "tarball", r.from)
		return
	}
	a.warn("a layer in a tarball is damaged, it is fetched again", "layer", layer.String(), "tarball", r.from)
	a.damaged = append(a.damaged, r.from)
}

// Verified implements [fetch.Events].
func (a *assembly) Verified(layer v1.Hash) {
	l, _ := a.layout.Layer(layer)
	a.mu.Lock()
	a.here[layer] = true
	a.mu.Unlock()
	a.incoming.complete(layer)
	if t := a.leading[layer]; t != nil {
		a.dir.inflight.complete(t, a.watch.flow, a.partial.file, l.Offset)
	}
}

// addUses adds what sources have given in one more fetch.
func addUses(all, more []tarball.SourceUse) []tarball.SourceUse {
	for _, m := range more {
		i := slices.IndexFunc(all, func(u tarball.SourceUse) bool { return u.Name == m.Name })
		if i < 0 {
			all = append(all, m)
			continue
		}
		u := &all[i]
		if m.Requests > u.Requests { // of two medians that of more requests
			u.FirstByte = m.FirstByte
		}
		u.Bytes, u.Duplicate = u.Bytes+m.Bytes, u.Duplicate+m.Duplicate
		u.Requests, u.Refused = u.Requests+m.Requests, u.Refused+m.Refused
		u.Busy, u.Connected = u.Busy+m.Busy, u.Connected+m.Connected
		u.Connections = max(u.Connections, m.Connections)
	}
	return all
}

// account fills in a result.
func (a *assembly) account(r *Result) {
	r.Downloaded, r.Damaged, r.Sources = a.downloaded, a.damaged, a.sources
	for _, u := range a.reused {
		r.Cloned += u.cloned
		r.Copied += u.copied
	}
	r.Reused = r.Cloned + r.Copied
	for _, n := range a.left {
		r.Resumed += n
	}
}
