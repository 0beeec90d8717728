package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/fetch"
	"github.com/dockercache/dockercache/cache/tarball"
)

// A sink is where a fetch writes a tarball that is uploaded: in memory, in parts. A part is
// sent when all of it is hashed, and every layer that ends in it verified. It implements
// [fetch.StateSink], and is safe for concurrent use.
//
// A layer with wrong bytes comes once more, so the bytes before it in its first part, which are
// sent by then, are kept until it is verified.
type sink struct {
	layout *tarball.Layout
	parts  []part
	layers []*sinkLayer // of the layout, by offset
	window int64
	limit  int                                                  // of parts that wait or are being sent
	send   func(number int32, from int64, content []byte) error // is called concurrently
	failed func(err error)                                      // is called with the first error

	mu       sync.Mutex
	cond     *sync.Cond
	buffers  map[int]*buffer // by index of parts
	pending  int             // parts that wait or are being sent
	isSent   []bool          // by index of parts: sent, or about to be
	isStored []bool          // by index of parts
	isBusy   []bool          // by index of parts: being sent
	attempt  []int           // by index of parts: counts how often it was sent
	states   map[int64]state // by the offset of a part's end
	err      error
	sending  sync.WaitGroup
	advanced func(offset int64, s state) // is called when all before an offset is stored
	prefix   int                         // parts before it are stored
}

// A state is the layer that a part ends in, hashed up to there; zero between layers.
type state struct {
	layer v1.Hash
	fetch.HashState
}

type sinkLayer struct {
	tarball.Segment
	here     bool  // its bytes come by fill, or are there: it is not fetched
	hashed   int64 // from its beginning on
	verified bool
	before   []byte // what is before it in its first part, if that was sent
}

// A buffer is a part in memory.
type buffer struct {
	content []byte
	done    int64 // bytes that are final
}

var errCannotRestart = errors.New("the layer cannot be begun again in this upload")

func newSink(layout *tarball.Layout, parts []part, window int64, limit int) *sink {
	s := newSinkOf(parts)
	s.layout, s.window, s.limit = layout, window, limit
	for _, l := range layout.Layers() {
		s.layers = append(s.layers, &sinkLayer{Segment: l})
	}
	return s
}

// newSinkOf returns a sink of parts that are all copied.
func newSinkOf(parts []part) *sink {
	n := len(parts)
	s := &sink{
		parts: parts, buffers: map[int]*buffer{}, states: map[int64]state{},
		isSent: make([]bool, n), isStored: make([]bool, n), isBusy: make([]bool, n), attempt: make([]int, n),
	}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// partAt returns the index of the part that an offset is in.
func (s *sink) partAt(offset int64) int {
	return sort.Search(len(s.parts), func(i int) bool { return s.parts[i].to > offset })
}

func (s *sink) layer(digest v1.Hash) *sinkLayer {
	i := slices.IndexFunc(s.layers, func(l *sinkLayer) bool { return l.Blob == digest })
	return s.layers[i]
}

// Window implements [fetch.Sink].
func (s *sink) Window() int64 { return s.window }

// NextState implements [fetch.StateSink]: at the end of each part.
func (s *sink) NextState(offset int64) int64 {
	return s.parts[s.partAt(offset)].to
}

// KeepState implements [fetch.StateSink].
func (s *sink) KeepState(offset int64, h fetch.HashState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.layers {
		if l.Offset < offset && offset < l.Offset+l.Length {
			s.states[offset] = state{l.Blob, h}
		}
	}
}

// at returns the buffer of a part, a new one with the literal bytes of the part if there is none.
func (s *sink) at(i int) *buffer {
	if b := s.buffers[i]; b != nil {
		return b
	}
	p := s.parts[i]
	b := &buffer{content: make([]byte, p.to-p.from)}
	for _, segment := range s.layout.Segments() {
		if !segment.IsBlob() {
			b.done += int64(p.copy(b.content, segment.Literal, segment.Offset))
		}
	}
	s.buffers[i] = b
	return b
}

// copy copies the bytes at an offset of the tarball into the content of a part, as far as they
// are in it.
func (p part) copy(content, bytes []byte, offset int64) int {
	from, to := max(offset, p.from), min(offset+int64(len(bytes)), p.to)
	if from >= to {
		return 0
	}
	return copy(content[from-p.from:to-p.from], bytes[from-offset:])
}

// each calls do with the parts of a range that this process sends, and the range within.
func (s *sink) each(from, to int64, do func(i int, from, to int64)) {
	for i := s.partAt(from); i < len(s.parts) && s.parts[i].from < to; i++ {
		if s.parts[i].copied == nil {
			do(i, max(from, s.parts[i].from), min(to, s.parts[i].to))
		}
	}
}

// WriteAt implements [fetch.Sink].
func (s *sink) WriteAt(p []byte, offset int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	if !slices.ContainsFunc(s.layers, func(l *sinkLayer) bool { return l.Offset <= offset && offset < l.Offset+l.Length }) {
		return len(p), nil // literal: each buffer has it from the beginning
	}
	s.each(offset, offset+int64(len(p)), func(i int, _, _ int64) {
		if !s.isSent[i] {
			s.parts[i].copy(s.at(i).content, p, offset)
		}
	})
	return len(p), nil
}

// ReadAt implements [fetch.Sink].
func (s *sink) ReadAt(p []byte, offset int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	n := 0
	var err error
	s.each(offset, offset+int64(len(p)), func(i int, from, to int64) {
		b := s.buffers[i]
		if b == nil {
			err = fmt.Errorf("bytes %d to %d are not in memory", from, to)
			return
		}
		n += copy(p[from-offset:to-offset], b.content[from-s.parts[i].from:])
	})
	if err == nil && n < len(p) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Hashed implements [fetch.Sink]. It waits while too many parts are being sent, so that memory
// is bounded.
func (s *sink) Hashed(offset, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.layers {
		if l.Offset <= offset && offset < l.Offset+l.Length {
			l.hashed = max(l.hashed, offset+n-l.Offset)
		}
	}
	s.finish(offset, n)
	s.cond.Broadcast()
	for s.pending > s.limit && s.err == nil {
		s.cond.Wait()
	}
}

// finish counts bytes that are final.
func (s *sink) finish(offset, n int64) {
	s.each(offset, offset+n, func(i int, from, to int64) {
		if !s.isSent[i] {
			s.at(i).done += to - from
			s.sendComplete(i)
		}
	})
}

// fillSpan writes bytes that are not fetched, of layers and what is between them.
func (s *sink) fillSpan(p []byte, offset int64) error {
	for _, l := range s.layers {
		from, to := max(l.Offset, offset), min(l.Offset+l.Length, offset+int64(len(p)))
		if from < to {
			if err := s.fill(p[from-offset:to-offset], from); err != nil {
				return err
			}
		}
	}
	return nil
}

// fill writes bytes of a layer that is not fetched. It waits until they are within the window,
// and while too many parts are being sent.
func (s *sink) fill(p []byte, offset int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && (offset+int64(len(p)) > s.hashedTo()+s.window || s.pending > s.limit) {
		s.cond.Wait()
	}
	if s.err != nil {
		return s.err
	}
	s.each(offset, offset+int64(len(p)), func(i int, _, _ int64) {
		if !s.isSent[i] {
			s.parts[i].copy(s.at(i).content, p, offset)
		}
	})
	s.finish(offset, int64(len(p)))
	return nil
}

// isFull reports whether the server takes less than comes.
func (s *sink) isFull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending > s.limit
}

// hashedTo returns up to where the tarball is hashed without a gap.
func (s *sink) hashedTo() int64 {
	for _, l := range s.layers {
		if !l.here && !l.verified {
			return l.Offset + l.hashed
		}
	}
	return s.layout.Size()
}

// verified is called when a layer is verified.
func (s *sink) verified(digest v1.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.layer(digest)
	l.verified, l.before, l.hashed = true, nil, l.Length
	if l.Length > 0 {
		i := s.partAt(l.Offset + l.Length - 1)
		if s.parts[i].copied == nil && !s.isSent[i] {
			s.at(i)
			s.sendComplete(i)
		}
	}
	s.cond.Broadcast()
}

// sendComplete sends a part if all of it is final.
func (s *sink) sendComplete(i int) {
	p, b := s.parts[i], s.buffers[i]
	if b == nil || b.done < p.to-p.from || s.err != nil {
		return
	}
	for _, l := range s.layers {
		end := l.Offset + l.Length
		if l.Length == 0 || l.here || l.verified || end <= p.from || l.Offset >= p.to {
			continue
		}
		if end <= p.to {
			return // it may be wrong
		}
		if l.Offset >= p.from {
			l.before = slices.Clone(b.content[:l.Offset-p.from])
		}
	}
	s.isSent[i] = true
	delete(s.buffers, i)
	s.pending++
	s.attempt[i]++
	attempt := s.attempt[i]
	s.sending.Go(func() {
		s.mu.Lock()
		for s.isBusy[i] && s.err == nil { // of two with a number that are sent at once either may stay
			s.cond.Wait()
		}
		err := s.err
		s.isBusy[i] = true
		s.mu.Unlock()
		if err == nil {
			err = s.send(p.number, p.from, b.content)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pending--
		s.isBusy[i] = false
		if err != nil {
			s.fail(err)
		} else if s.attempt[i] == attempt && s.isSent[i] {
			s.stored(i)
		}
		s.cond.Broadcast()
	})
}

// stored records that the server has a part.
func (s *sink) stored(i int) {
	s.isStored[i] = true
	moved := false
	for s.prefix < len(s.parts) && s.isStored[s.prefix] {
		s.prefix++
		moved = true
	}
	if moved && s.advanced != nil {
		offset := s.parts[s.prefix-1].to
		s.advanced(offset, s.states[offset])
		for at := range s.states {
			if at < offset {
				delete(s.states, at)
			}
		}
	}
}

// copied records that the server has copied a part.
func (s *sink) copied(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isSent[i] = true
	s.stored(i)
}

// restarted is called when a layer begins again.
func (s *sink) restarted(digest v1.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.layer(digest)
	first := s.partAt(l.Offset)
	s.each(l.Offset, l.Offset+max(l.hashed, 1), func(i int, from, to int64) {
		p := s.parts[i]
		if !s.isSent[i] {
			if b := s.buffers[i]; b != nil {
				b.done -= max(min(l.Offset+l.hashed, p.to)-from, 0)
			}
			return
		}
		if i == first && l.Offset > p.from && l.before == nil {
			s.fail(errCannotRestart)
			return
		}
		s.isSent[i], s.isStored[i] = false, false
		s.prefix = min(s.prefix, i)
		delete(s.states, p.to)
		b := s.at(i)
		if i == first {
			for _, other := range s.layers { // literal bytes are there, and count
				if other.Length > 0 && other.Offset < l.Offset && other.Offset+other.Length > p.from {
					from, to := max(other.Offset, p.from), other.Offset+other.Length
					copy(b.content[from-p.from:to-p.from], l.before[from-p.from:])
					b.done += to - from
				}
			}
		}
	})
	l.hashed = 0
}

// fail ends everything with the first error. The mutex is held.
func (s *sink) fail(err error) {
	if s.err == nil {
		s.err = err
		s.cond.Broadcast()
		if s.failed != nil {
			go s.failed(err)
		}
	}
}

// end waits for the parts that are being sent, and returns the first error.
func (s *sink) end(err error) error {
	s.mu.Lock()
	if err != nil {
		s.fail(err)
	}
	s.mu.Unlock()
	s.sending.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// watch ends everything when ctx does.
func (s *sink) watch(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fail(context.Cause(ctx))
	})
}

// events are those of a fetch into a sink.
type events struct {
	fetch.NoEvents
	sink    *sink
	damaged func(layer v1.Hash)
}

func (e events) Verified(layer v1.Hash)  { e.sink.verified(layer) }
func (e events) Restarted(layer v1.Hash) { e.sink.restarted(layer) }
func (e events) Damaged(layer v1.Hash)   { e.damaged(layer) }
