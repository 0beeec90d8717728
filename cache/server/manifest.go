package server

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// manifest serves the manifest that a tag or a digest names.
func (s *server) manifest(w http.ResponseWriter, r *http.Request, repository, ref string) error {
	wanted, byDigest := func(i image) bool { return i.tag == ref }, strings.Contains(ref, ":")
	if byDigest {
		digest, err := v1.NewHash(ref)
		if err != nil {
			return badDigest(ref)
		}
		wanted = func(i image) bool { return i.info.Image.Digest() == digest }
	}
	for range maxLooks {
		images, err := s.images(r, repository, byDigest)
		if err != nil {
			return err
		}
		n := slices.IndexFunc(images, wanted)
		if n < 0 {
			break
		}
		i := images[n]
		if r.Method == http.MethodGet {
			if isGone(s.keep(r.Context(), i)) {
				continue // just now
			}
			s.catalog.used(r.Context(), i)
		}
		m := i.info.Image
		w.Header().Set("Content-Type", string(m.MediaType()))
		w.Header().Set("Docker-Content-Digest", m.Digest().String())
		w.Header().Set("Etag", `"`+m.Digest().String()+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(m.Manifest()))
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
