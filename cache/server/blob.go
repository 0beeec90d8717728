package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
)

// blob serves a layer or a config, or a range of it.
func (s *server) blob(w http.ResponseWriter, r *http.Request, repository, name string) error {
	digest, err := v1.NewHash(name)
	if err != nil {
		return badDigest(name)
	}
	content, err := s.find(r, repository, digest)
	if err != nil {
		return err
	}
	defer content.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", digest.String())
	w.Header().Set("Etag", `"`+digest.String()+`"`)
	if strings.Contains(r.Header.Get("Range"), ",") {
		// Several ranges would be read by a goroutine that may outlive the answer. Who
		// asks for them has to expect the whole.
		r = r.Clone(r.Context())
		r.Header.Del("Range")
	}
	http.ServeContent(w, r, "", time.Time{}, content)
	if l, ok := content.(*layer); ok && l.err != nil {
		s.failed(r, l.err) // the answer ends early, which its length tells the client
	}
	return nil
}

// find finds a blob, first among what is known, then in the directory as it is now.
func (s *server) find(r *http.Request, repository string, digest v1.Hash) (io.ReadSeekCloser, error) {
	var images []image
	var failed, gone error
	for _, fresh := range []bool{false, true} {
		all, err := s.catalog.images(r.Context(), fresh)
		if err != nil {
			return nil, err
		}
		images = called(all, repository, r.URL.Query().Get("ns"))
		failed, gone = nil, nil
		for _, i := range images {
			content, err := open(r.Context(), i.tarball, digest)
			if content != nil {
				return content, nil
			}
			if isGone(err) {
				gone = errors.Join(gone, err)
			} else {
				failed = errors.Join(failed, err)
			}
		}
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

// isGone tells whether a tarball is no longer there, or another one is in its place.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, cache.ErrReplaced)
}

// open opens a blob of an image; nil if it has none of this digest. The manifest
// counts as one, as it does for registries.
func open(ctx context.Context, t *cache.Tarball, digest v1.Hash) (io.ReadSeekCloser, error) {
	switch digest {
	case t.Image.ConfigDigest():
		return bytesCloser{bytes.NewReader(t.Image.Config())}, nil
	case t.Image.Digest():
		return bytesCloser{bytes.NewReader(t.Image.Manifest())}, nil
	}
	for _, d := range t.Image.Layers() {
		if d.Digest != digest {
			continue
		}
		l := &layer{ctx: ctx, tarball: t, digest: digest, size: d.Size}
		// Now, not when the first byte is read: then it is too late to say no.
		if err := l.begin(); err != nil {
			return nil, err
		}
		return l, nil
	}
	return nil, nil
}

type bytesCloser struct{ *bytes.Reader }

func (bytesCloser) Close() error { return nil }

// layer reads a layer of a tarball from wherever it is told to.
type layer struct {
	ctx     context.Context
	tarball *cache.Tarball
	digest  v1.Hash
	size    int64

	at   int64
	r    io.ReadCloser // what is at
	from int64         // where r is
	err  error         // of reading, not of its end
}

// begin makes r read what is at.
func (l *layer) begin() error {
	if l.r != nil && l.from == l.at || l.at == l.size {
		return nil
	}
	_ = l.Close()
	r, err := l.tarball.ReadRange(l.ctx, l.digest, l.at, l.size-l.at)
	if err != nil {
		return err
	}
	l.r, l.from = r, l.at
	return nil
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
	l.at = offset
	return offset, nil
}

func (l *layer) Read(p []byte) (int, error) {
	if l.at == l.size {
		return 0, io.EOF
	}
	if l.err = l.begin(); l.err != nil {
		return 0, l.err
	}
	n, err := l.r.Read(p)
	l.at, l.from = l.at+int64(n), l.from+int64(n)
	if err != nil && err != io.EOF {
		l.err = err
	}
	return n, err
}

func (l *layer) Close() error {
	if l.r == nil {
		return nil
	}
	err := l.r.Close()
	l.r = nil
	return err
}
