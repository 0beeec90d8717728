package server

import (
	"bytes"
	"net/http"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// manifest serves the manifest that a tag or a digest names.
func (s *server) manifest(w http.ResponseWriter, r *http.Request, repository, ref string) error {
	images, err := s.images(r, repository)
	if err != nil {
		return err
	}
	wanted := func(i image) bool { return i.tag == ref }
	if strings.Contains(ref, ":") {
		digest, err := v1.NewHash(ref)
		if err != nil {
			return badDigest(ref)
		}
		wanted = func(i image) bool { return i.has(digest) }
	}
	for _, i := range images {
		if !wanted(i) {
			continue
		}
		m := i.tarball.Image
		if r.Method == http.MethodGet {
			s.used(i.tarball)
		}
		w.Header().Set("Content-Type", string(m.MediaType()))
		w.Header().Set("Docker-Content-Digest", m.Digest().String())
		w.Header().Set("Etag", `"`+m.Digest().String()+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(m.Manifest()))
		return nil
	}
	return unknownManifest(repository, ref)
}
