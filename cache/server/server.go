package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
)

// Options of [New], [NewOf] and [NewSingle]. The zero value of each field works.
type Options struct {
	// Prefix is for clients that can be given a path: engines ask a host for /v2/ alone, so
	// to share a mux with other handlers register this one at "/v2/" and leave Prefix
	// empty. It is the path below which the handler is, such as "/cache": then the API is
	// at /cache/v2/. Other paths are not found. Default: the root, where container
	// engines look for it. The handler sees the whole path: no [http.StripPrefix].
	Prefix string
	// Registry is the host of the registry that a repository without one means, such as
	// docker.io: for clients that use this as a mirror of that registry, and can be
	// given neither a path nor a name. Default: none, such repositories are not found.
	Registry string
	// Platforms are those of all clients. Then an index is served only where each of
	// them that it lists is stocked; elsewhere the index's tag and digest are not
	// found. Some clients take all of an image from where they have got the index
	// (podman, CRI-O): without Platforms they fail where theirs is not stocked, rather
	// than ask the registry itself. Default: an index is served where there is one.
	Platforms []v1.Platform
	// Authorize, when not nil, decides about each request. repository is the one in
	// its path, as the client gave it; "" where there is none, as for the list of all. The
	// same image is reached with the registry's host in the repository, and without it by
	// the parameter ns or [Options.Registry], so a rule about a repository must cover
	// both. See [BasicAuth]. An error that wraps
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
	// ListEvery is how often a [Store] is listed at most, for [NewOf]; less than 0 is at each
	// request for a manifest or a list. A directory is looked at each time. Default:
	// [DefaultListEvery].
	ListEvery time.Duration
	// Upstream, when not nil, is where images are fetched that are asked for and are not
	// stocked. They are stocked, and served while they come. A client reads what the
	// upstream may read, in the repositories that it allows, see [Options.Authorize].
	// [Handler.Close] must be called in the end. It is for [New] alone. Default: what
	// is not stocked is not found.
	Upstream Upstream
	// Logger logs each request, and what could not be read. Default: silent.
	Logger *slog.Logger
	// Failed, when not nil, is called with what kept a tarball from being read, be it
	// damaged, or gone: for a file of the directory that is no tarball once, and again
	// when the file has changed. It is called concurrently.
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

// TokenAuth returns an [Options.Authorize] that asks check about the token of each request,
// as in the header "Authorization: Bearer TOKEN". check should compare in constant time
// (crypto/subtle). Clients that take a token from a server, and not from their
// configuration, cannot be given one.
func TokenAuth(check func(token string) bool) func(r *http.Request, repository string) error {
	return func(r *http.Request, _ string) error {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") || check == nil || !check(strings.TrimSpace(token)) {
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
	c := newDirCatalog(dir, s.Hold, s.notServed)
	s.catalog = c
	if s.Upstream != nil {
		s.filler = newFiller(s, s.Upstream)
	}
	return &Handler{s, &c.holder}
}

// A Handler is the registry of the images of a directory or a [Store]. It is safe for
// concurrent use.
type Handler struct {
	server *server
	holder *holder // nil if it holds nothing
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.server.ServeHTTP(w, r) }

// Look looks at the directory now, rather than at the next request, and returns how many
// images are served. The error is that of the directory. A store is looked at no more often
// than [Options.ListEvery].
func (h *Handler) Look(ctx context.Context) (images int, err error) {
	known, err := h.server.catalog.images(ctx, true)
	if err != nil {
		return 0, err
	}
	return len(known.all), nil
}

// Close closes the tarballs that are held, see [Options.Hold], and those that are being
// read when that ends. The handler goes on serving, and holds none any more. It fetches none
// any more either, see [Options.Upstream]: what is being fetched ends, which Close waits
// for, and what has come of it serves the next attempt.
func (h *Handler) Close() error {
	if h.server.filler != nil {
		h.server.filler.close()
	}
	if h.holder != nil {
		h.holder.closeAll()
	}
	return nil
}

// NewSingle returns a registry that has only the image of a tarball, as REPOSITORY:TAG,
// and lists nothing: a client that does not know the tag does not learn it. The tarball
// must stay open as long as the handler is used; of a nil one nothing is served.
func NewSingle(t *tarball.Tarball, repository, tag string, o *Options) http.Handler {
	s := newServer(o)
	if t != nil {
		s.catalog = single{image{info: &t.Info, name: repository, tag: tag}, t}
	}
	return s
}

type server struct {
	Options
	catalog catalog
	lists   bool    // lists are given
	filler  *filler // nil if nothing is fetched
	counts  counts
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
	if s.ListEvery == 0 {
		s.ListEvery = DefaultListEvery
	}
	return s
}

// ServeHTTP implements [http.Handler].
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.Logger.DebugContext(r.Context(), "request", "method", r.Method, "url", r.URL.String(), "range", r.Header.Get("Range"), "by", r.RemoteAddr)
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0") // older clients insist on it
	counted := &counter{ResponseWriter: w}
	defer s.counts.count(counted, kindOf(r.URL.Path))
	if w = counted; r.Method != http.MethodGet && r.Method != http.MethodHead {
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
	if r.URL.Path == s.Prefix+"/healthz" {
		return s.health(w, r)
	}
	if r.URL.Path == s.Prefix+"/metrics" && s.lists {
		if err := s.authorize(w, r, ""); err != nil {
			return err
		}
		return s.serveMetrics(w, r)
	}
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
	repository, serve := s.endpoint(path)
	if serve == nil {
		return errNoPath
	}
	if err := s.authorize(w, r, repository); err != nil {
		return err
	}
	return serve(w, r)
}

// endpoint returns what serves a path below /v2/, nil if there is no such path, and the
// repository in it. A repository may have parts that are called as the API's are: the last
// one counts.
func (s *server) endpoint(path string) (repository string, serve func(http.ResponseWriter, *http.Request) error) {
	if repository, ok := strings.CutSuffix(path, "/tags/list"); ok && s.lists {
		return repository, func(w http.ResponseWriter, r *http.Request) error { return s.tags(w, r, repository) }
	}
	last := -1
	for part, f := range map[string]func(w http.ResponseWriter, r *http.Request, repository, name string) error{
		"/manifests/": s.manifest, "/blobs/": s.blob, "/referrers/": s.referrers,
	} {
		if at := strings.LastIndex(path, part); at > last && (s.lists || part != "/referrers/") {
			last, repository = at, path[:at]
			serve = func(w http.ResponseWriter, r *http.Request) error { return f(w, r, repository, path[at+len(part):]) }
		}
	}
	return repository, serve
}

// health reports whether the directory can be read. It reports nothing else, and so needs no
// authorization.
func (s *server) health(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.catalog.images(r.Context(), true); err != nil {
		s.failed(r, err)
		return &refusal{http.StatusServiceUnavailable, "UNAVAILABLE", "the cache directory cannot be read"}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n")
	return nil
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

// ask returns what a request asks about. ns that names this server is no other registry's.
func ask(r *http.Request, repository string) question {
	q := question{repository, r.URL.Query().Get("ns")}
	if strings.EqualFold(q.ns, r.Host) {
		q.ns = ""
	}
	return q
}

// images returns those of a repository, as they are now, or as they were a moment ago
// too.
func (s *server) images(r *http.Request, repository string, held bool) ([]image, error) {
	known, err := s.catalog.images(r.Context(), true)
	if err != nil {
		return nil, err
	}
	var more []image
	if held {
		more = s.catalog.held()
	}
	images := s.called(known, more, ask(r, repository))
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

// notServed reports a file of the directory that is not served.
func (s *server) notServed(ctx context.Context, err error) {
	s.counts.skipped.Add(1)
	s.Logger.WarnContext(ctx, "a file is not served", "error", err)
	if s.Failed != nil {
		s.Failed(err)
	}
}

// unreadable reports what could not be read.
func (s *server) unreadable(ctx context.Context, err error, args ...any) {
	s.Logger.WarnContext(ctx, "cannot read", append(args, "error", err)...)
	if s.Failed != nil {
		s.Failed(err)
	}
}
