package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// An Incoming is a tarball that [Dir.Put] is writing, see [PutOptions.Incoming]. Its layers
// can be read while they come. It is a [tarball.Source], and safe for concurrent use.
type Incoming struct {
	image  *tarball.Image
	layout *tarball.Layout

	mu      sync.Mutex
	file    *os.File // nil when it is closed
	layers  map[v1.Hash]*incomingLayer
	changed chan struct{} // closed, and replaced, when more can be read, or nothing more will be
	readers int
	ended   bool  // Put has returned
	err     error // why the rest will not come
}

// incomingLayer is how far a layer is there.
type incomingLayer struct {
	there      int64 // bytes from its beginning that are in the file and went into its hash; all: it is verified
	generation int   // counts how often it was begun
}

// errNotIncoming is the error of a tarball that is no longer being written.
var errNotIncoming = errors.New("the tarball is no longer being written")

// newIncoming returns nil if the partial file cannot be opened once more.
func newIncoming(p *partialFile, img *tarball.Image, layout *tarball.Layout) *Incoming {
	// A duplicate would hold the writer's lock after the writer.
	f := sys.OpenAgain(p.file)
	if f == nil {
		return nil
	}
	in := &Incoming{image: img, layout: layout, file: f, layers: map[v1.Hash]*incomingLayer{}, changed: make(chan struct{})}
	for _, l := range layout.Layers() {
		in.layers[l.Blob] = &incomingLayer{}
	}
	return in
}

// Image returns the image that the tarball will hold.
func (in *Incoming) Image() *tarball.Image { return in.image }

// ReadRange returns length bytes from offset on of a layer. The reader gives them when all
// of the layer up to there has come, and waits until then; it must be closed. Only the
// layer's last byte has been verified, with all of the layer: who reads less has to verify
// it. The reader fails, rather than that it ends early, when the rest will not come, and
// when what it has read turns out to be wrong and is fetched again. After Put has
// returned a new reader cannot be had, and those that there are read on to their end. As
// long as there is one the tarball is in use. It is a [tarball.PartReader].
func (in *Incoming) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	segment, ok := in.layout.Layer(digest)
	if !ok || offset < 0 || length < 0 || offset > segment.Length-length {
		return nil, fmt.Errorf("layer %s: no bytes %d to %d", digest, offset, offset+length)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended {
		return nil, errNotIncoming
	}
	in.readers++
	return &incomingReader{in: in, ctx: ctx, layer: in.layers[digest], segment: segment, generation: -1, at: offset, end: offset + length}, nil
}

// hashed records that n bytes at an offset of the file are there, and hashed.
func (in *Incoming) hashed(offset, n int64) {
	if in == nil {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, s := range in.layout.Layers() {
		if offset < s.Offset || offset >= s.Offset+s.Length {
			continue
		}
		// What is hashed of a layer that is begun again meanwhile does not follow.
		if l, from, to := in.layers[s.Blob], offset-s.Offset, min(offset-s.Offset+n, s.Length-1); from <= l.there && l.there < to {
			l.there = to
			in.notify()
		}
	}
}

// restarted records that nothing of a layer counts any more.
func (in *Incoming) restarted(digest v1.Hash) {
	if in == nil {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	l := in.layers[digest]
	l.there = 0
	l.generation++
	in.notify()
}

// complete records that all of a layer is there, and verified.
func (in *Incoming) complete(digest v1.Hash) {
	if in == nil {
		return
	}
	segment, _ := in.layout.Layer(digest)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.layers[digest].there = segment.Length
	in.notify()
}

// end records that Put returns: with err, or with the whole tarball.
func (in *Incoming) end(err error) {
	if in == nil {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended, in.err = true, err; err == nil {
		for _, s := range in.layout.Layers() {
			in.layers[s.Blob].there = s.Length
		}
	}
	in.notify()
	in.closeUnused()
}

// notify wakes who waits. The mutex is held.
func (in *Incoming) notify() {
	close(in.changed)
	in.changed = make(chan struct{})
}

// closeUnused closes the file that nobody reads any more. The mutex is held.
func (in *Incoming) closeUnused() {
	if in.ended && in.readers == 0 && in.file != nil {
		_ = in.file.Close()
		in.file = nil
	}
}

// incomingReader reads a range of a layer.
type incomingReader struct {
	in         *Incoming
	ctx        context.Context
	layer      *incomingLayer
	segment    tarball.Segment
	generation int // of the bytes that it has read; -1: none yet
	at, end    int64
	closed     bool
	parts      sys.Parts
}

// Read implements [io.Reader].
func (r *incomingReader) Read(p []byte) (int, error) {
	r.at += r.parts.Done()
	if r.at == r.end {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	most, file, err := r.await()
	if err != nil {
		return 0, err
	}
	p = p[:min(int64(len(p)), most)]
	n, err := file.ReadAt(p, r.segment.Offset+r.at)
	r.at += int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // the file is as long as it will be
	}
	if n == len(p) {
		err = nil
	}
	return n, err
}

// Part implements [tarball.PartReader].
func (r *incomingReader) Part() (*io.LimitedReader, error) {
	r.at += r.parts.Done()
	if r.at == r.end {
		return nil, io.EOF
	}
	n, file, err := r.await()
	if err != nil {
		return nil, err
	}
	return r.parts.Next(file, r.segment.Offset+r.at, n), nil
}

// await waits until a byte can be read, and returns how many can.
func (r *incomingReader) await() (n int64, file *os.File, err error) {
	in := r.in
	for {
		in.mu.Lock()
		there, generation, changed := r.layer.there, r.layer.generation, in.changed
		ended, failed, file := in.ended, in.err, in.file
		in.mu.Unlock()
		switch {
		case r.closed:
			return 0, nil, os.ErrClosed
		case r.generation >= 0 && r.generation != generation:
			return 0, nil, fmt.Errorf("layer %s: %w: what was read of it is fetched again", r.segment.Blob, tarball.ErrDigest)
		case there > r.at:
			r.generation = generation
			return min(there, r.end) - r.at, file, nil
		case ended:
			return 0, nil, fmt.Errorf("layer %s: %w: %w", r.segment.Blob, errNotIncoming, failed)
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
			return 0, nil, wait.Err(r.ctx)
		}
	}
}

// Close implements [io.Closer].
func (r *incomingReader) Close() error {
	r.in.mu.Lock()
	defer r.in.mu.Unlock()
	if r.closed {
		return os.ErrClosed
	}
	r.closed = true
	r.parts.Close()
	r.in.readers--
	r.in.closeUnused()
	return nil
}
