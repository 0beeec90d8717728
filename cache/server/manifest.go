package server

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// manifest serves the manifest or index that a tag or a digest names.
func (s *server) manifest(w http.ResponseWriter, r *http.Request, repository, ref string) error {
	err := s.stocked(w, r, repository, ref)
	if s.filler != nil && isMissing(err) {
		return s.filler.manifest(w, r, repository, ref, err)
	}
	return err
}

// stocked is manifest for what is stocked.
func (s *server) stocked(w http.ResponseWriter, r *http.Request, repository, ref string) error {
	find, byDigest := func(images []image) (*document, []image) { return s.byTag(images, ref) }, strings.Contains(ref, ":")
	if byDigest {
		digest, err := parseDigest(ref)
		if err != nil {
			return err
		}
		find = func(images []image) (*document, []image) { return s.byDigest(images, digest) }
	}
	for range maxLooks {
		images, err := s.images(r, repository, byDigest)
		if err != nil {
			return err
		}
		d, from := find(images)
		if !byDigest && !s.catalog.confirm(r.Context(), from) {
			continue // it has changed just now
		}
		switch {
		case d == nil && len(from) > 0:
			return notForAll(repository, ref)
		case d == nil:
			return unknownManifest(repository, ref)
		}
		if r.Method == http.MethodGet {
			if isGone(s.keep(r.Context(), d.image)) {
				continue
			}
			s.catalog.used(r.Context(), d.image)
		}
		w.Header().Set("Content-Type", string(d.mediaType))
		w.Header().Set("Docker-Content-Digest", d.digest.String())
		w.Header().Set("Etag", `"`+d.digest.String()+`"`)
		serveContent(w, r, bytes.NewReader(d.raw))
		return nil
	}
	return unknownManifest(repository, ref)
}

// maxLooks bounds how often a tarball may go between the look at the directory and its
// opening.
const maxLooks = 10

// keep keeps the tarball of an image open for [Options.Hold]: the client may ask for the
// blobs next.
func (s *server) keep(ctx context.Context, i image) error {
	_, done, err := s.catalog.open(ctx, i)
	if err == nil {
		done()
	}
	return err
}

// parseDigest reads a digest, of any algorithm that is known: by some nothing is stocked.
func parseDigest(text string) (v1.Hash, error) {
	digest, err := v1.NewHash(text)
	if err != nil {
		return v1.Hash{}, badDigest(text)
	}
	return digest, nil
}

// serveContent answers with content, or with the range of it that is asked for. By
// RFC 9110 (section 14.2) a range is for GET alone, and one in another unit than bytes
// is ignored; the name of a unit has no case.
func serveContent(w http.ResponseWriter, r *http.Request, content io.ReadSeeker) {
	if asked := r.Header.Get("Range"); asked != "" {
		r = r.Clone(r.Context())
		r.Header.Del("Range")
		unit, ranges, found := strings.Cut(asked, "=")
		// Several ranges would be read by a goroutine that may outlive the answer. A
		// client that asks for them must accept the whole.
		if r.Method == http.MethodGet && found && strings.EqualFold(unit, "bytes") && !strings.Contains(ranges, ",") {
			r.Header.Set("Range", "bytes="+ranges)
		}
	}
	http.ServeContent(w, r, "", time.Time{}, content)
}
