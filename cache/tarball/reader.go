package tarball

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/internal/imagespec"
	"github.com/dockercache/dockercache/internal/wait"
)

// ReadRange implements [Source]: it returns length bytes of a layer, from offset on.
// The bytes are not verified. The reader must be closed before the tarball is; ctx
// ends it too. It is a [PartReader].
func (t *Tarball) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	if t == nil || t.r == nil {
		return nil, errNotOpen
	}
	s, ok := t.Layout.Layer(digest)
	if !ok {
		return nil, Permanent(fmt.Errorf("layer %s is not part of %s", digest, t.name))
	}
	if err := checkRange(digest, s.Length, offset, length); err != nil {
		return nil, err
	}
	at := s.Offset + offset
	return &rangeReader{section: section{ctx: ctx, r: t.r, at: at, end: at + length}, name: t.name}, nil
}

func checkRange(layer v1.Hash, size, offset, length int64) error {
	if offset < 0 || length < 1 || length > size-offset {
		return Permanent(fmt.Errorf("layer %s has %d bytes: no range of %d at %d", layer, size, length, offset))
	}
	return nil
}

// rangeReader is a section that must be there.
type rangeReader struct {
	section
	name  string
	parts sys.Parts
}

func (r *rangeReader) Read(p []byte) (int, error) {
	r.at += r.parts.Done()
	if r.at == r.end {
		return 0, io.EOF
	}
	n, err := r.section.Read(p)
	if err == io.EOF {
		err = fmt.Errorf("%s: %w", r.name, io.ErrUnexpectedEOF)
	}
	return n, err
}

// maxPart is how many bytes a part has at most: before each one the storage is asked for what
// comes after it, and the context is looked at.
const maxPart = 2 << 20

// Part implements [PartReader].
func (r *rangeReader) Part() (*io.LimitedReader, error) {
	r.at += r.parts.Done()
	switch {
	case r.at == r.end:
		return nil, io.EOF
	case r.ctx.Err() != nil:
		return nil, wait.Err(r.ctx)
	}
	f := sys.FileOf(r.r)
	if f != nil && !r.isAsked {
		r.ahead.Keep(f, r.at, r.end)
	}
	return r.parts.Next(f, r.at, min(r.end-r.at, maxPart)), nil
}

func (r *rangeReader) Close() error {
	_ = r.parts.Done()
	r.parts.Close()
	r.at = r.end
	return nil
}

// section reads a part of a tarball, and ends with the context: it would read to the
// end otherwise, tens of gigabytes.
type section struct {
	ctx      context.Context
	r        io.ReaderAt
	at, end  int64
	ahead    sys.Prefetch
	progress func(n int64) // nil: none
	isAsked  bool          // what is read was asked for already
}

func (s *section) Read(p []byte) (int, error) {
	switch {
	case s.at == s.end:
		return 0, io.EOF
	case s.ctx.Err() != nil:
		return 0, wait.Err(s.ctx)
	case len(p) == 0:
		return 0, nil
	}
	if !s.isAsked {
		s.ahead.Keep(s.r, s.at, s.end)
	}
	n, err := s.r.ReadAt(p[:min(int64(len(p)), s.end-s.at)], s.at)
	if n > 0 {
		err = nil // it comes again
	}
	s.at += int64(n)
	if s.progress != nil {
		s.progress(int64(n))
	}
	return n, err
}

// segmentReader reads one segment of a tarball after the other. While it reads a layer it asks
// for the next ones: of an image with small layers the storage would have little to read ahead.
type segmentReader struct {
	ctx      context.Context
	tarball  *Tarball
	segments []Segment
	verify   bool

	ahead  sys.Prefetch
	ranges []sys.Range // of the layers, in the tarball
	done   int64       // bytes of them that were read

	next    int // of the segments
	current io.ReadCloser
	isLayer bool // it is one
	closed  bool
}

func (t *Tarball) readSegments(ctx context.Context, segments []Segment, verify bool) *segmentReader {
	r := &segmentReader{ctx: ctx, tarball: t, segments: segments, verify: verify}
	for _, s := range segments {
		if there, ok := t.Layout.Layer(s.Blob); ok && s.IsBlob() {
			r.ranges = append(r.ranges, sys.Range{Offset: there.Offset, Length: s.Length})
		}
	}
	return r
}

func (r *segmentReader) Read(p []byte) (int, error) {
	for {
		if r.closed {
			return 0, os.ErrClosed
		}
		if r.current == nil {
			if r.next == len(r.segments) {
				return 0, io.EOF
			}
			if err := r.open(r.segments[r.next]); err != nil {
				return 0, err
			}
			r.next++
			continue
		}
		if r.isLayer {
			r.ahead.KeepRanges(r.tarball.r, r.done, r.ranges)
		}
		n, err := r.current.Read(p)
		if r.isLayer {
			r.done += int64(n)
		}
		if err == io.EOF {
			_ = r.current.Close()
			r.current, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
		if len(p) == 0 {
			return 0, nil
		}
	}
}

// open makes a segment the current one; none if it is empty.
func (r *segmentReader) open(s Segment) error {
	switch {
	case s.Length == 0 && r.verify && s.Blob != imagespec.DigestOf(nil):
		return fmt.Errorf("%s: layer %s: %w: it has no bytes", r.tarball.name, s.Blob, ErrDigest)
	case s.Length == 0:
		return nil
	case !s.IsBlob():
		r.current, r.isLayer = io.NopCloser(bytes.NewReader(s.Literal)), false
		return nil
	}
	layer, err := r.tarball.ReadRange(r.ctx, s.Blob, 0, s.Length)
	if err != nil {
		return err
	}
	layer.(*rangeReader).isAsked = true
	if r.current, r.isLayer = layer, true; r.verify {
		r.current = &verifyingReader{ReadCloser: layer, name: r.tarball.name, layer: s.Blob, left: s.Length, sum: sha256.New()}
	}
	return nil
}

func (r *segmentReader) Close() error {
	r.closed = true
	if r.current == nil {
		return nil
	}
	return r.current.Close()
}

// verifyingReader gives out the last bytes of a layer only when all of them have
// the layer's digest.
type verifyingReader struct {
	io.ReadCloser
	name  string
	layer v1.Hash
	left  int64
	sum   hash.Hash
	err   error // of all further reads
}

func (r *verifyingReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.ReadCloser.Read(p)
	_, _ = r.sum.Write(p[:n]) // a hash never fails
	if r.left -= int64(n); r.left == 0 && n > 0 {
		if got := hex.EncodeToString(r.sum.Sum(nil)); got != r.layer.Hex {
			r.err = fmt.Errorf("%s: layer %s: %w: its bytes have the digest sha256:%s", r.name, r.layer, ErrDigest, got)
			return 0, r.err
		}
	}
	return n, err
}
