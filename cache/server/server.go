package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
)

// Options of [New] and [NewSingle]. The zero value of each field works.
type Options struct {
	// Prefix is for clients that can be given a path: engines ask a host for /v2/ alone, so
	// to share a mux with other handlers register this one at "/v2/" and leave Prefix
	// empty. It is the path below which the handler is, such as "/cache": then the API is
	// at /cache/v2/. Other paths are not found. Default: the root, where container
	// engines look for it. The handler sees the whole path: no [http.StripPrefix].
	Prefix string
	// Authorize, when not nil, decides about each request. repository is the one in
	// its path, as the client gave it; "" where there is none, as for the list of all. The
	// same image is reached with the registry's host in the repository and without, so a
	// rule about a repository must cover both. See [BasicAuth]. An error that wraps
	// [ErrUnauthorized] is answered with 401 and Challenge, any other with 403; its
	// text is logged and not sent. It is called concurrently.
	Authorize func(r *http.Request, repository string) error
	// Challenge is the header WWW-Authenticate of an answer with 401. Default:
	// Basic realm="dockercache".
	Challenge string
	// Hold is for how long a tarball stays open after the last request for a part of
	// it: a client that has got its manifest gets its blobs too, should it be
	// replaced or removed meanwhile. [cache.Dir.Prune] spares it until then, and [cache.Dir.Remove] returns
	// [cache.ErrInUse]. Default:
	// [DefaultHold]; less than 0 is not at all. At most 256 are held at a time, the
	// least recently used is closed first.
	Hold time.Duration
	// Logger logs each request, and what could not be read. Default: silent.
	Logger *slog.Logger
	// Failed, when not nil, is called with what kept a tarball from being read, be it
	// damaged, or gone. It is called concurrently.
	Failed func(error)
}

// DefaultHold is the default of [Options.Hold]: longer than engines take from one
// layer's request to the next.
const DefaultHold = 15 * time.Minute

// BasicAuth returns an [Options.Authorize] that asks check about the user and password of
// each request. check should compare in constant time (crypto/subtle).
func BasicAuth(check func(user, password string) bool) func(r *http.Request, repository string) error {
	return func(r *http.Request, _ string) error {
		if user, password, ok := r.BasicAuth(); !ok || check == nil || !check(user, password) {
			return ErrUnauthorized
		}
		return nil
	}
}

// ErrUnauthorized is what [Options.Authorize] returns for a request that lacks
// credentials, or has wrong ones.
var ErrUnauthorized = errors.New("unauthorized")

// New returns the registry of a directory's images. It looks for new ones whenever it
// is asked for a manifest or a list, and records for [cache.Dir.Prune] which are pulled.
// It is safe for concurrent use. Of a nil directory it serves nothing.
func New(dir *cache.Dir, o *Options) *Handler {
	s := newServer(o)
	s.lists = true
	if dir == nil {
		return &Handler{server: s}
	}
	c := newDirCatalog(dir, s.Hold, s.unreadable)
	s.catalog = c
	return &Handler{s, c}
}

// A Handler is the registry of a directory's images. It is safe for concurrent use.
type Handler struct {
	server  *server
	catalog *dirCatalog
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.server.ServeHTTP(w, r) }

// Close closes the tarballs that are held, see [Options.Hold], and those that are being
// read when that ends. The handler goes on serving, and holds none any more.
func (h *Handler) Close() error {
	if h.catalog != nil {
		h.catalog.holder.closeAll()
	}
	return nil
}

// NewSingle returns a registry that has only the image of a tarball, as REPOSITORY:TAG,
// and lists nothing: a client that does not know the tag does not learn it. The tarball
// must stay open as long as the handler is used; of a nil one nothing is served.
func NewSingle(t *tarball.Tarball, repository, tag string, o *Options) http.Handler {
	s := newServer(o)
	if t != nil {
		s.catalog = single{image{info: &t.Info, repository: repository, tag: tag}, t}
	}
	return s
}

type server struct {
	Options
	catalog catalog
	lists   bool // lists are given
}

func newServer(o *Options) *server {
	s := &server{catalog: single{}}
	if o != nil {
		s.Options = *o
	}
	if s.Prefix = strings.Trim(s.Prefix, "/"); s.Prefix != "" {
		s.Prefix = "/" + s.Prefix
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	if s.Challenge == "" {
		s.Challenge = `Basic realm="dockercache"`
	}
	if s.Hold == 0 {
		s.Hold = DefaultHold
	}
	return s
}

// ServeHTTP implements [http.Handler].
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.Logger.DebugContext(r.Context(), "request", "method", r.Method, "url", r.URL.String(), "range", r.Header.Get("Range"), "by", r.RemoteAddr)
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

// route answers a request, or returns why it has not.
func (s *server) route(w http.ResponseWriter, r *http.Request) error {
	path, ok := strings.CutPrefix(r.URL.Path, s.Prefix+"/v2")
	if !ok || path != "" && path[0] != '/' {
		return errNoPath
	}
	path = strings.TrimPrefix(path, "/")
	if path == "" || path == "_catalog" && s.lists {
		if err := s.authorize(w, r, ""); err != nil {
			return err
		}
		if path == "" {
			return s.greet(w)
		}
		return s.repositories(w, r)
	}
	// A repository may have parts that are called so: the last one counts.
	m, b := strings.LastIndex(path, "/manifests/"), strings.LastIndex(path, "/blobs/")
	repository, isTags := strings.CutSuffix(path, "/tags/list")
	switch {
	case isTags && s.lists:
	case m > b:
		repository = path[:m]
	case b >= 0:
		repository = path[:b]
	default:
		return errNoPath
	}
	if err := s.authorize(w, r, repository); err != nil {
		return err
	}
	switch {
	case isTags && s.lists:
		return s.tags(w, r, repository)
	case m > b:
		return s.manifest(w, r, repository, path[m+len("/manifests/"):])
	}
	return s.blob(w, r, repository, path[b+len("/blobs/"):])
}

// authorize asks the caller's rule about a request.
func (s *server) authorize(w http.ResponseWriter, r *http.Request, repository string) error {
	if s.Authorize == nil {
		return nil
	}
	err := s.Authorize(r, repository)
	if err == nil {
		return nil
	}
	s.Logger.InfoContext(r.Context(), "not authorized", "url", r.URL.String(), "by", r.RemoteAddr, "error", err)
	if errors.Is(err, ErrUnauthorized) {
		w.Header().Set("WWW-Authenticate", s.Challenge)
		return errUnauthorized
	}
	return errDenied
}

// greet says that this is a registry.
func (s *server) greet(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}")
	return nil
}

// images returns those of a repository, as they are now, or as they were a moment ago
// too.
func (s *server) images(r *http.Request, repository string, held bool) ([]image, error) {
	all, err := s.catalog.images(r.Context(), true)
	if err != nil {
		return nil, err
	}
	if held {
		all = append(slices.Clip(all), s.catalog.held()...)
	}
	images := called(all, repository, r.URL.Query().Get("ns"))
	if len(images) == 0 {
		return nil, unknownName(repository)
	}
	return images, nil
}

// failed reports what kept a request from being answered, unless it was the client.
func (s *server) failed(r *http.Request, err error) {
	if r.Context().Err() == nil {
		s.unreadable(r.Context(), err, "url", r.URL.String())
	}
}

// unreadable reports what could not be read.
func (s *server) unreadable(ctx context.Context, err error, args ...any) {
	s.Logger.WarnContext(ctx, "cannot read", append(args, "error", err)...)
	if s.Failed != nil {
		s.Failed(err)
	}
}
