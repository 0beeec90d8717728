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
	landed     map[v1.Hash]*flight // of others, with a file to take the layer from

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
		proven: map[v1.Hash]bool{}, piloted: map[v1.Hash]*flight{}, landed: map[v1.Hash]*flight{}, reused: map[v1.Hash]reuse{},
	}
	if p.done == nil {
		p.done = map[v1.Hash][]interval{}
	}
	return s
}

// bring fills the partial file and proves all of it.
func (s *supply) bring(ctx context.Context) error {
	defer s.disembark()
	todo := s.layout.layers()
	for first := true; first || len(todo) > 0; first = false {
		// Boarding comes before looking at the directory: a flight that has retired
		// in between is in a tarball by then.
		now, later := s.board(todo)
		err := s.bringNow(ctx, now)
		s.disembark()
		if todo, err = s.await(ctx, later, err); err != nil {
			return err
		}
	}
	return nil
}

// bringNow brings layers that nobody else is bringing.
func (s *supply) bringNow(ctx context.Context, layers []Segment) error {
	search := slices.DeleteFunc(s.missing(layers), func(l Segment) bool { return s.landed[l.Blob] != nil })
	local, closeLocal := findLayers(s.dir.path, search)
	// Not longer than it is needed: open tarballs are in use, and keep their space.
	closeLocal = sync.OnceFunc(closeLocal)
	defer closeLocal()
	for _, l := range layers {
		if f := s.landed[l.Blob]; f != nil {
			local[l.Blob] = []localLayer{{f.file, f.offset}}
		}
	}
	if err := s.prepare(layers, local); err != nil {
		return err
	}
	missing := s.missing(layers)
	for layer := range local {
		if !slices.ContainsFunc(missing, func(l Segment) bool { return l.Blob == layer }) {
			delete(local, layer) // cloned
		}
	}
	if len(local) == 0 {
		closeLocal()
	}
	return s.fill(ctx, layers, local, closeLocal)
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

// prepare clones what tarballs in the directory have, and makes room for the rest.
func (s *supply) prepare(layers []Segment, local map[v1.Hash][]localLayer) error {
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

// copied is told of bytes of a layer that were copied.
func (s *supply) copied(layer v1.Hash, from localLayer, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, name := s.reused[layer], from.file.Name()
	if r.copied > 0 && r.from != name { // of several: none can be blamed
		name = ""
	}
	s.reused[layer] = reuse{copied: r.copied + n, from: name}
}

// restarted is told of a layer of which nothing counts any more.
func (s *supply) restarted(layer v1.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.reused, layer)
}

// unreadable is told of a layer that cannot be copied from where it is.
func (s *supply) unreadable(layer v1.Hash, from localLayer, err error) {
	s.dir.log.Warn("a layer cannot be read where it is", "layer", layer.String(), "file", from.file.Name(), "error", err)
}

// fill copies or fetches what is still missing of some layers and proves them.
func (s *supply) fill(ctx context.Context, layers []Segment, local map[v1.Hash][]localLayer, closeLocal func()) error {
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
		local: local, copied: s.copied, unreadable: s.unreadable, allCopied: closeLocal, restarted: s.restarted,
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

// wasDamaged is told of a layer that is there, but wrong.
func (s *supply) wasDamaged(layer v1.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.reused[layer]
	if !ok {
		return
	}
	delete(s.reused, layer)
	if l, _ := s.layout.layer(layer); r.from == "" || r.cloned+r.copied < l.Length { // an earlier run left the rest, and may be the one that is wrong
		s.dir.log.Warn("a layer that was copied in part is damaged, it is fetched anew", "layer", layer.String(), "tarball", r.from)
		return
	}
	s.dir.log.Warn("a layer in a tarball is damaged, it is fetched anew", "layer", layer.String(), "tarball", r.from)
	s.damaged = append(s.damaged, r.from)
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
