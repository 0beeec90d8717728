package server

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/dockercache/dockercache/cache"
)

// Options of [New]. The zero value of each field works.
type Options struct {
	// Logger is told of each request, and of what could not be read. Default: silent.
	Logger *slog.Logger
	// Failed, when not nil, is told what kept a tarball from being read, be it damaged,
	// or replaced since its manifest was served. It is called
	// concurrently.
	Failed func(error)
}

// New returns the registry of a directory's images. It looks for new ones whenever it
// is asked for a manifest or a list, and notes for [cache.Dir.Prune] which are pulled.
func New(dir *cache.Dir, o *Options) http.Handler {
	c := &dirCatalog{path: dir.Path(), list: dir.List}
	s := newServer(c, dir.MarkUsed, o)
	c.skipped = func(err error) { s.unreadable(err) }
	return s
}

// NewImage returns a registry that has only the image of a tarball, as REPOSITORY:TAG,
// and lists nothing: who does not know the tag does not learn it. When the tarball is
// replaced, layers that the new one does not have are no longer served.
func NewImage(tarball *cache.Tarball, repository, tag string, o *Options) http.Handler {
	return newServer(oneImage{image{tarball: tarball, repository: repository, tag: tag}}, func(*cache.Tarball) {}, o)
}

type server struct {
	Options
	catalog catalog
	used    func(*cache.Tarball)
}

func newServer(c catalog, used func(*cache.Tarball), o *Options) *server {
	s := &server{catalog: c, used: used}
	if o != nil {
		s.Options = *o
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	return s
}

// ServeHTTP implements [http.Handler].
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.Logger.Debug("asked", "method", r.Method, "url", r.URL.String(), "range", r.Header.Get("Range"), "by", r.RemoteAddr)
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0") // older clients insist on it
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, errReadOnly)
		return
	}
	if err := s.route(w, r); err != nil {
		if !errors.As(err, new(*refusal)) {
			s.failed(r, err)
		}
		refuse(w, err)
	}
}

// images returns those of a repository, as they are now.
func (s *server) images(r *http.Request, repository string) ([]image, error) {
	all, err := s.catalog.images(r.Context(), true)
	if err != nil {
		return nil, err
	}
	images := called(all, repository, r.URL.Query().Get("ns"))
	if len(images) == 0 {
		return nil, unknownName(repository)
	}
	return images, nil
}

// failed tells what kept a request from being answered, unless it was the client.
func (s *server) failed(r *http.Request, err error) {
	if r.Context().Err() != nil {
		return
	}
	s.unreadable(err, "url", r.URL.String())
}

// unreadable tells what could not be read.
func (s *server) unreadable(err error, about ...any) {
	s.Logger.Warn("cannot read", append(about, "error", err)...)
	if s.Failed != nil {
		s.Failed(err)
	}
}

// route answers a request, or returns why it has not.
func (s *server) route(w http.ResponseWriter, r *http.Request) error {
	if r.URL.Path == "/v2" {
		return s.greet(w)
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	switch {
	case !ok:
		return errNoPath
	case path == "":
		return s.greet(w)
	case path == "_catalog" && s.lists():
		return s.repositories(w, r)
	}
	if repository, ok := strings.CutSuffix(path, "/tags/list"); ok && s.lists() {
		return s.tags(w, r, repository)
	}
	// A repository may have parts that are called so: the last one counts.
	m, b := strings.LastIndex(path, "/manifests/"), strings.LastIndex(path, "/blobs/")
	switch {
	case m > b:
		return s.manifest(w, r, path[:m], path[m+len("/manifests/"):])
	case b >= 0:
		return s.blob(w, r, path[:b], path[b+len("/blobs/"):])
	}
	return errNoPath
}

// lists tells whether lists are given.
func (s *server) lists() bool {
	_, one := s.catalog.(oneImage)
	return !one
}

// greet says that this is a registry.
func (s *server) greet(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}")
	return nil
}
