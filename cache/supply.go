package cache

import (
	"context"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A supply brings the layers of one tarball into its partial file, each by the
// way that moves the fewest bytes: an earlier run left it; a tarball in the
// directory has it, cloned where possible and copied otherwise; another image of
// this process is fetching it; the source has it.
type supply struct {
	dir    *Dir
	p      *partialFile
	layout *Layout
	src    BlobSource
	o      *PutOptions

	resumed    bool // an earlier run left something
	downloaded int64
	proven     map[v1.Hash]bool
	piloted    map[v1.Hash]*flight // that others may wait for

	mu      sync.Mutex
	reused  map[v1.Hash]reuse
	damaged []string // which files had wrong bytes
}

// A reuse is a layer that came from another tarball.
type reuse struct {
	cloned, copied int64
	from           string // path
}

func newSupply(d *Dir, p *partialFile, layout *Layout, src BlobSource, o *PutOptions) *supply {
	s := &supply{
		dir: d, p: p, layout: layout, src: src, o: o, resumed: len(p.done) > 0,
		proven: map[v1.Hash]bool{}, piloted: map[v1.Hash]*flight{}, reused: map[v1.Hash]reuse{},
	}
	if p.done == nil {
		p.done = map[v1.Hash][]interval{}
	}
	return s
}

// bring fills the partial file and proves all of it.
func (s *supply) bring(ctx context.Context) error {
	todo := s.layout.layers()
	for first := true; first || len(todo) > 0; first = false {
		// Boarding comes before looking at the directory: a flight that has retired
		// in between is in a tarball by then.
		now, later := s.board(todo)
		local, closeLocal := findLayers(s.dir.path, s.missing(now))
		err := s.prepare(ctx, now, local)
		closeLocal()
		if err == nil {
			err = s.fill(ctx, now)
		}
		todo = nil
		for _, a := range later {
			if err == nil {
				err = s.await(ctx, a)
			}
			s.dir.flights.leave(a.flight)
			todo = append(todo, a.layer)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// missing returns the layers that are not complete in the partial file.
func (s *supply) missing(layers []Segment) []Segment {
	return slices.DeleteFunc(slices.Clone(layers), func(l Segment) bool { return len(s.gaps(l)) == 0 })
}

// gaps returns which bytes of a layer the partial file lacks.
func (s *supply) gaps(l Segment) []interval {
	var gaps []interval
	at := int64(0)
	for _, d := range s.p.done[l.Blob] {
		if at < d.from {
			gaps = append(gaps, interval{at, d.from})
		}
		at = d.to
	}
	if at < l.Length {
		gaps = append(gaps, interval{at, l.Length})
	}
	return gaps
}

// clone takes a layer where that costs neither time nor space.
func (s *supply) clone(l Segment, from localLayer) bool {
	n := cloneRange(s.p.file, l.Offset, from.file, from.offset, l.Length)
	if n == 0 {
		return false
	}
	rest := l.Length - n // less than a block
	if readAndWrite(context.Background(), s.p.file, l.Offset+n, from.file, from.offset+n, rest) != nil {
		return false // whatever it was shows again when the layer is fetched
	}
	s.took(l, reuse{cloned: n, copied: rest, from: from.file.Name()})
	return true
}

func (s *supply) took(l Segment, r reuse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reused[l.Blob] = r
	s.p.done[l.Blob] = []interval{{0, l.Length}}
	s.p.journal.add(l.Blob, 0, l.Length)
}

// An awaited layer is on another image's flight.
type awaited struct {
	layer  Segment
	flight *flight
}

// board tells which layers are to be brought now, and which by others.
func (s *supply) board(layers []Segment) (now []Segment, later []awaited) {
	for _, l := range layers {
		if s.piloted[l.Blob] != nil || len(s.gaps(l)) == 0 {
			now = append(now, l)
		} else if f, pilot := s.dir.flights.board(l.Blob); pilot {
			s.piloted[l.Blob] = f
			now = append(now, l)
		} else {
			later = append(later, awaited{l, f})
		}
	}
	return now, later
}

// prepare takes what tarballs in the directory have, and makes room for the rest.
func (s *supply) prepare(ctx context.Context, layers []Segment, local map[v1.Hash][]localLayer) error {
	for _, l := range s.missing(layers) {
		for _, from := range local[l.Blob] {
			if s.clone(l, from) {
				break
			}
		}
	}
	var ranges []interval // of the file
	need := -s.spare()
	for _, l := range s.missing(layers) {
		for _, g := range s.gaps(l) {
			need += g.to - g.from
			ranges = append(ranges, interval{l.Offset + g.from, l.Offset + g.to})
		}
	}
	if err := s.dir.checkRoom(s.p.file, need); err != nil {
		return err
	}
	if err := reserve(s.p.file, ranges); err != nil {
		return &writeError{err}
	}
	for _, l := range s.missing(layers) {
		for _, from := range local[l.Blob] {
			if err := s.copy(ctx, l, from); err != nil {
				return err
			}
			if len(s.gaps(l)) == 0 {
				break
			}
		}
	}
	return nil
}

// spare returns how many bytes of the disk the partial file has beyond what is
// done: what an earlier run had reserved.
func (s *supply) spare() int64 {
	info, err := s.p.file.Stat()
	if err != nil {
		return 0
	}
	spare := allocated(info)
	for _, done := range s.p.done {
		for _, d := range done {
			spare -= d.to - d.from
		}
	}
	return max(spare, 0)
}

// copy takes a layer by copying it. What cannot be read is fetched: the error is
// that of the partial file, or of ctx.
func (s *supply) copy(ctx context.Context, l Segment, from localLayer) error {
	err := copyRange(ctx, s.p.file, l.Offset, from.file, from.offset, l.Length)
	switch {
	case err == nil:
		s.took(l, reuse{copied: l.Length, from: from.file.Name()})
	case isWrite(err) || ctx.Err() != nil:
		return err
	default:
		s.dir.log.Warn("a layer cannot be read where it is", "layer", l.Blob.String(), "file", from.file.Name(), "error", err)
	}
	return nil
}

// fill fetches what is still missing of some layers and proves them.
func (s *supply) fill(ctx context.Context, layers []Segment) error {
	skip := map[v1.Hash]int64{}
	for _, l := range s.layout.layers() {
		if s.proven[l.Blob] {
			skip[l.Blob] = l.Length
		} else {
			skip[l.Blob] = 0
		}
	}
	for _, l := range layers {
		delete(skip, l.Blob)
	}
	atStep("write")
	n, err := s.dir.engine.Fill(ctx, s.p.file, s.layout, s.src, &FillOptions{
		Progress: s.o.Progress, done: s.p.done, journal: s.p.journal, skip: skip,
		verified: s.land, damaged: s.wasDamaged,
	})
	s.downloaded += n
	if err != nil {
		return err
	}
	for _, l := range layers {
		s.proven[l.Blob] = true
		s.p.done[l.Blob] = []interval{{0, l.Length}}
	}
	return nil
}

// await waits for the layer that another image's flight brings, and takes it from
// where it has landed. If it did not land, the layer is missing as before.
func (s *supply) await(ctx context.Context, a awaited) error {
	if err := a.flight.wait(ctx); err != nil || a.flight.file == nil {
		return err
	}
	from := localLayer{a.flight.file, a.flight.offset}
	if s.clone(a.layer, from) {
		return nil
	}
	if err := s.dir.checkRoom(s.p.file, a.layer.Length); err != nil {
		return err
	}
	return s.copy(ctx, a.layer, from)
}

// wasDamaged is told of a layer that is there, but wrong.
func (s *supply) wasDamaged(layer v1.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.reused[layer]; ok {
		s.dir.log.Warn("a layer in a tarball is damaged, it is fetched anew", "layer", layer.String(), "tarball", r.from)
		s.damaged = append(s.damaged, r.from)
		delete(s.reused, layer)
	}
}

// land ends the flight of a layer that is proven.
func (s *supply) land(layer v1.Hash) {
	for _, l := range s.layout.layers() {
		if f := s.piloted[layer]; f != nil && l.Blob == layer {
			s.dir.flights.land(f, s.p.file, l.Offset)
		}
	}
}

// retire ends all flights. It is called when the tarball is published, or will
// not be.
func (s *supply) retire() {
	for layer, f := range s.piloted {
		s.dir.flights.retire(layer, f)
	}
}

// account fills in a result.
func (s *supply) account(r *Result) {
	r.Downloaded, r.Damaged = s.downloaded, s.damaged
	for _, u := range s.reused {
		r.Cloned += u.cloned
		r.Copied += u.copied
	}
	r.Reused = r.Cloned + r.Copied
}
