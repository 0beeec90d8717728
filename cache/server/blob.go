package server

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
)

// blob serves a layer or a config, or a range of it.
func (s *server) blob(w http.ResponseWriter, r *http.Request, repository, name string) error {
	digest, err := parseDigest(name)
	if err != nil {
		return err
	}
	content, err := s.find(r, repository, digest)
	if s.filler != nil && isMissing(err) {
		content, err = s.filler.blob(r, repository, digest, err)
	}
	if err != nil {
		return err
	}
	defer content.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", digest.String())
	w.Header().Set("Etag", `"`+digest.String()+`"`)
	serveContent(w, r, content)
	if l, ok := content.(*layer); ok && l.err != nil {
		s.failed(r, l.err)
		// The answer ends early, which the client sees by its length: HTTP/1 ends the
		// connection by itself.
		if r.ProtoMajor > 1 {
			panic(http.ErrAbortHandler)
		}
	}
	return nil
}

// find finds a blob, first among what is known, then in the directory as it is now; in
// both, what is there comes before what is only held.
func (s *server) find(r *http.Request, repository string, digest v1.Hash) (io.ReadSeekCloser, error) {
	var images []image
	var failed, gone error
	for _, fresh := range []bool{false, true} {
		known, err := s.catalog.images(r.Context(), fresh)
		if err != nil {
			return nil, err
		}
		images = s.called(known, s.catalog.held(), ask(r, repository))
		gone = nil
		before := failed // of what may not be known any more, since it is damaged
		failed = nil
		for _, i := range images {
			content, err := s.open(r.Context(), i, digest)
			if content != nil {
				return content, nil
			}
			if isGone(err) {
				gone = errors.Join(gone, err)
			} else {
				failed = errors.Join(failed, err)
			}
		}
		failed = cmp.Or(failed, before)
	}
	switch {
	case failed != nil:
		return nil, failed
	case gone != nil: // the tarball was replaced or removed since its manifest was served
		s.failed(r, gone)
	case len(images) == 0:
		return nil, unknownName(repository)
	}
	return nil, unknownBlob(repository, digest.String())
}

// isGone reports whether a tarball is no longer there, or another one is in its place.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, cache.ErrReplaced)
}

// open opens a blob of an image; nil if it has none of this digest. Manifest and
// indexes count as such, as they do for registries.
func (s *server) open(ctx context.Context, i image, digest v1.Hash) (io.ReadSeekCloser, error) {
	switch digest {
	case i.info.Image.ConfigDigest():
		_ = s.keep(ctx, i)
		return bytesCloser{bytes.NewReader(i.info.Image.Config())}, nil
	case i.info.Image.Digest():
		_ = s.keep(ctx, i)
		return bytesCloser{bytes.NewReader(i.info.Image.Manifest())}, nil
	}
	for _, x := range i.indexes {
		if x.digest == digest {
			_ = s.keep(ctx, i)
			return bytesCloser{bytes.NewReader(x.raw)}, nil
		}
	}
	segment, ok := i.info.Layout.Layer(digest)
	if !ok {
		return nil, nil
	}
	t, done, err := s.catalog.open(ctx, i)
	if err != nil {
		return nil, err
	}
	return &layer{ctx: ctx, source: t, done: done, digest: digest, size: segment.Length}, nil
}

type bytesCloser struct{ *bytes.Reader }

func (bytesCloser) Close() error { return nil }

// layer reads a layer of a tarball from wherever it is asked to.
type layer struct {
	ctx    context.Context
	source tarball.Source
	done   func() // when the source is no longer needed
	digest v1.Hash
	size   int64

	at  int64
	r   io.ReadCloser // reads from there on; nil: it is not open
	err error         // of reading, not of its end
}

// begin begins to read the n bytes that come next.
func (l *layer) begin(n int64) error {
	l.end()
	r, err := l.source.ReadRange(l.ctx, l.digest, l.at, n)
	if l.err = err; err == nil {
		l.r = r
	}
	return err
}

func (l *layer) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += l.at
	case io.SeekEnd:
		offset += l.size
	}
	if offset < 0 || offset > l.size {
		return 0, fmt.Errorf("layer %s has %d bytes: no seek to %d", l.digest, l.size, offset)
	}
	l.end()
	l.at = offset
	return offset, nil
}

func (l *layer) Read(p []byte) (int, error) {
	if l.at == l.size {
		return 0, io.EOF
	}
	if l.r == nil {
		if err := l.begin(l.size - l.at); err != nil {
			return 0, err
		}
	}
	n, err := l.r.Read(p)
	l.at += int64(n)
	if err != nil && err != io.EOF {
		l.err = err
	}
	return n, err
}

// writeTo writes n bytes of the layer, from where it is read: by sendfile, if they are in a file
// and w is a connection. The error is that of reading or of writing, and l.err that of reading.
func (l *layer) writeTo(w io.Writer, n int64) (written int64, err error) {
	n = min(n, l.size-l.at)
	if n == 0 {
		return 0, nil
	}
	if err := l.begin(n); err != nil {
		return 0, err
	}
	defer l.end()
	parts, ok := l.r.(tarball.PartReader)
	for ok {
		part, err := parts.Part()
		if err == io.EOF {
			return written, nil
		}
		if err != nil {
			l.err = err
			return written, err
		}
		if part == nil {
			break
		}
		m, err := io.Copy(w, part)
		l.at, written = l.at+m, written+m
		if err == nil && part.N == 0 {
			continue
		}
		if err == nil || errors.Is(err, syscall.ESTALE) || errors.As(err, new(*fs.PathError)) {
			break // the file is shorter, gone from its server, or cannot be read: Read finds out
		}
		if part.N > 0 {
			_, _ = l.Read(make([]byte, 1)) // fails if it was reading that did
		}
		return written, err
	}
	m, err := io.Copy(w, io.LimitReader(l, n-written))
	return written + m, err
}

func (l *layer) end() {
	if l.r != nil {
		_ = l.r.Close()
		l.r = nil
	}
}

// Close gives up the source.
func (l *layer) Close() error {
	l.end()
	l.done()
	return nil
}
