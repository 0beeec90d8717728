package registrytest

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
)

// A Storage is the blob storage of a [Server], on its own origin, as S3
// is for a cloud registry: the registry redirects to it with a URL that carries
// a signature. It serves ranges of the registry's blobs, with the registry's
// quirks of bodies. It answers 400 to a request with an Authorization header,
// as S3 does, and 403 to one with an expired signature.
type Storage struct {
	// URL is what the registry redirects to, in front of the path. Default: the
	// address of this server. Set it before the first request.
	URL string

	server   *Server
	listener net.Listener
	http     http.Server
	uses     int

	mu       sync.Mutex
	refuses  bool // every signature
	number   int  // of the signature that is issued
	used     int  // how often that one was
	refused  bool // it was found to be expired
	expired  int  // answers 403
	requests []*Request
}

// NewStorage starts a storage with the blobs of server that ends with the test.
// [Quirks.Storage] makes the server use it.
//
// With signatureUses other than 0 a signature expires after so many requests,
// and the registry continues to issue it until the storage has denied it once, as
// one does that caches signed URLs for too long.
func NewStorage(t interface {
	Fatal(args ...any)
	Cleanup(func())
}, server *Server, signatureUses int) *Storage {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Storage{server: server, listener: l, uses: signatureUses}
	s.http.Handler = s
	go func() { _ = s.http.Serve(l) }() // ends with ErrServerClosed
	t.Cleanup(func() { _ = s.http.Close() })
	return s
}

// Host returns HOST:PORT.
func (s *Storage) Host() string { return s.listener.Addr().String() }

// Requests returns all requests so far, in order, with all their headers.
func (s *Storage) Requests() []Request {
	s.server.mu.Lock() // it guards Request.Sent
	defer s.server.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return values(s.requests)
}

// Expired returns how many requests were refused for their signature.
func (s *Storage) Expired() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expired
}

// Refuse makes the storage refuse every signature from now on.
func (s *Storage) Refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses = true
}

// sign returns the signed URL of a path.
func (s *Storage) sign(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.number == 0 || s.refused {
		s.number++
		s.used, s.refused = 0, false
	}
	base := s.URL
	if base == "" {
		base = "http://" + s.Host()
	}
	return base + path + "?" + s.signature()
}

func (s *Storage) signature() string { return fmt.Sprintf("%s-%d", Signature, s.number) }

// admit reports whether a signature is good, and counts its use.
func (s *Storage) admit(query string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuses || query != s.signature() || s.uses > 0 && s.used >= s.uses {
		s.refused = s.refused || query == s.signature()
		s.expired++
		return false
	}
	s.used++
	return true
}

// ServeHTTP answers as the storage, for use in another server.
func (s *Storage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	record := newRequest(r)
	s.mu.Lock()
	s.requests = append(s.requests, record)
	s.mu.Unlock()
	if r.Header.Get("Authorization") != "" {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte("<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>"))
		return
	}
	if !s.admit(r.URL.RawQuery) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte("<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"))
		return
	}
	repository, digest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs/")
	s.server.mu.Lock()
	b, ok := s.server.blobs[repository+"@"+digest]
	q := s.server.quirks
	s.server.mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	s.server.serveContent(w, r, record, b, q)
}
