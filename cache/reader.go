package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ReadRange makes a tarball a [BlobSource] of its layers. The bytes are not
// verified.
//
// A tarball that is replaced while it is read stays readable. Where its file is
// gone all the same, as on another NFS client after the grace period (ESTALE),
// the one that has its place now is read on from the same byte, if it has the
// layer; if not, the error wraps [ErrReplaced].
func (t *Tarball) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	s, ok := t.segment(digest)
	if !ok {
		return nil, fmt.Errorf("layer %s is not part of %s", digest, t.Path)
	}
	if offset < 0 || length < 1 || length > s.Length-offset {
		return nil, fmt.Errorf("layer %s has %d bytes: no range of %d at %d", digest, s.Length, length, offset)
	}
	r := &layerReader{ctx: ctx, path: t.Path, layer: s, at: offset, left: length, open: openForReading}
	if err := r.reopen(); err != nil {
		return nil, err
	}
	return r, nil
}

// Open returns a reader of the whole file as it was read: when another tarball
// takes its place, the rest comes from there as far as it has the same layers,
// as [Tarball.ReadRange] has it.
func (t *Tarball) Open(ctx context.Context) io.ReadCloser {
	return &tarballReader{ctx: ctx, tarball: t, segments: t.Layout.segments}
}

func (t *Tarball) segment(digest v1.Hash) (Segment, bool) { return t.Layout.layer(digest) }

// openFile is what is read: an [*os.File], but in tests.
type openFile interface {
	io.ReaderAt
	io.Closer
}

// openForReading opens a tarball and finds a layer in it. It holds a shared lock
// while it is open, which tells prune that the tarball is in use.
func openForReading(path string, layer v1.Hash) (openFile, Segment, error) {
	f, err := openToRead(path, 0)
	if err != nil {
		return nil, Segment{}, err
	}
	lockShared(f)
	info, err := f.Stat()
	if err == nil {
		var now *Tarball
		if now, err = readHead(f, info.Size()); err == nil {
			if s, ok := now.segment(layer); ok {
				return f, s, nil
			}
			err = fmt.Errorf("%w: it has no layer %s any more", ErrReplaced, layer)
		} else if !errors.Is(err, syscall.ESTALE) {
			err = fmt.Errorf("%w: %w", ErrNotTarball, err)
		}
	}
	_ = f.Close()
	return nil, Segment{}, fmt.Errorf("%s: %w", path, err)
}

// mostReopens bounds how often a file may go stale under one read without a byte
// in between.
const mostReopens = 5

type layerReader struct {
	ctx      context.Context
	path     string
	layer    Segment // where it is in the file that is open
	at, left int64   // within the layer
	file     openFile
	open     func(path string, layer v1.Hash) (openFile, Segment, error)
	reopened int
	ahead    prefetch
}

func (r *layerReader) reopen() error {
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
	for {
		f, s, err := r.open(r.path, r.layer.Blob)
		if err == nil && s.Length != r.layer.Length {
			_ = f.Close()
			return fmt.Errorf("%s: %w: layer %s had %d bytes and has %d", r.path, ErrReplaced, r.layer.Blob, r.layer.Length, s.Length)
		}
		if err == nil {
			r.file, r.layer = f, s
			return nil
		}
		if r.reopened++; !errors.Is(err, syscall.ESTALE) || r.reopened > mostReopens {
			return err
		}
	}
}

func (r *layerReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if r.file == nil {
		return 0, os.ErrClosed
	}
	for {
		if r.ctx.Err() != nil {
			return 0, context.Cause(r.ctx)
		}
		at := r.layer.Offset + r.at
		r.ahead.keep(r.file, at, at+r.left)
		n, err := r.file.ReadAt(p[:min(int64(len(p)), r.left)], at)
		if n > 0 {
			r.at, r.left, r.reopened = r.at+int64(n), r.left-int64(n), 0
			return n, nil // an error comes again
		}
		switch {
		case len(p) == 0:
			return 0, nil
		case errors.Is(err, syscall.ESTALE):
			if r.reopened++; r.reopened > mostReopens {
				return 0, err
			}
			if err := r.reopen(); err != nil {
				return 0, err
			}
		case err == io.EOF:
			return 0, fmt.Errorf("%s: %w", r.path, io.ErrUnexpectedEOF)
		default:
			return 0, err
		}
	}
}

func (r *layerReader) Close() error {
	r.left = 0
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}

// tarballReader is one segment after the other.
type tarballReader struct {
	ctx      context.Context
	tarball  *Tarball
	segments []Segment
	next     int // of them
	now      io.ReadCloser
	verify   bool
	closed   bool
}

func (r *tarballReader) Read(p []byte) (int, error) {
	for {
		if r.closed {
			return 0, os.ErrClosed
		}
		if r.now == nil {
			if r.next == len(r.segments) {
				return 0, io.EOF
			}
			s := r.segments[r.next]
			r.next++
			switch {
			case s.Length == 0 && r.verify && s.Blob != sha256Of(nil):
				r.next--
				return 0, fmt.Errorf("%s: layer %s: %w: it has no bytes", r.tarball.Path, s.Blob, ErrBlobDigest)
			case s.Length == 0:
				continue
			case s.IsBlob():
				now, err := r.tarball.ReadRange(r.ctx, s.Blob, 0, s.Length)
				if err != nil {
					r.next--
					return 0, err
				}
				if r.now = now; r.verify {
					r.now = &verifyingReader{ReadCloser: now, path: r.tarball.Path, layer: s.Blob, left: s.Length, sum: sha256.New()}
				}
			default:
				r.now = io.NopCloser(bytes.NewReader(s.Literal))
			}
		}
		n, err := r.now.Read(p)
		if err == io.EOF {
			_ = r.now.Close()
			r.now, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
		if len(p) == 0 {
			return 0, nil
		}
	}
}

func (r *tarballReader) Close() error {
	r.closed = true
	if r.now == nil {
		return nil
	}
	return r.now.Close()
}
