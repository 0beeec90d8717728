package registrytest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A Server is a registry on a port of 127.0.0.1 that keeps images in memory. It is
// safe for concurrent use.
type Server struct {
	listener net.Listener
	http     http.Server

	mu        sync.Mutex
	quirks    Quirks
	manifests map[string]stored // by repository + ":" + tag and repository + "@" + digest
	blobs     map[string]stored // by repository + "@" + digest
	requests  []*Request
	happened  map[string]int // by name of the quirk
	tokens    tokens
	busyUntil time.Time // by the last Retry-After
	tooEarly  int
	limit     limit // of Quirks.RequestsPerSecond
}

type stored struct {
	content   []byte
	mediaType types.MediaType
	digest    v1.Hash
	config    bool // of an image: spared by the quirks of blobs
}

// A Request is one that a [Server] got.
type Request struct {
	Method, Path string
	Header       http.Header
	// Remote is the client's HOST:PORT: requests with the same one came over
	// the same connection.
	Remote string
	// Sent is how many bytes of a blob were sent in answer, so far.
	Sent int64
}

// Start starts a registry. It ends with [Server.Close].
func Start() (*Server, error) { return StartSlow(0, 0) }

// StartSlow is [Start] behind a [Throttle]: bytesPerSecond is the limit of each
// connection, latency the delay of each answer. 0 is no limit.
func StartSlow(bytesPerSecond int64, latency time.Duration) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if bytesPerSecond > 0 || latency > 0 {
		l = &Throttle{Listener: l, BytesPerSecond: bytesPerSecond, Latency: latency}
	}
	s := &Server{listener: l, manifests: map[string]stored{}, blobs: map[string]stored{}, happened: map[string]int{}}
	s.http.Handler = s
	s.http.ErrorLog = nil
	go func() { _ = s.http.Serve(l) }() // ends with ErrServerClosed
	return s, nil
}

// New starts a registry that ends with the test.
func New(t interface {
	Fatal(args ...any)
	Cleanup(func())
}) *Server {
	s, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Close ends the server and every connection to it.
func (s *Server) Close() { _ = s.http.Close() }

// Host returns HOST:PORT.
func (s *Server) Host() string { return s.listener.Addr().String() }

// SetQuirks replaces what the server does wrong.
func (s *Server) SetQuirks(q Quirks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quirks, s.happened, s.busyUntil, s.tooEarly, s.limit = q, map[string]int{}, time.Time{}, 0, limit{}
}

// Requests returns all requests so far, in order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return values(s.requests)
}

func values(requests []*Request) []Request {
	out := make([]Request, len(requests))
	for i, r := range requests {
		out[i] = *r
	}
	return out
}

// Happened returns how often a quirk showed since [Server.SetQuirks], by the
// name of its field, such as "Stall". It counts those that have a ...Count, and the
// refusals of "RequestsPerSecond".
func (s *Server) Happened(quirk string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.happened[quirk]
}

// TooEarly returns how many requests for blobs came before the time had passed
// that the last Retry-After asked for.
func (s *Server) TooEarly() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tooEarly
}

// first reports whether a quirk shall show, and counts it.
func (s *Server) first(quirk string, count int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if count > 0 && s.happened[quirk] >= count {
		return false
	}
	s.happened[quirk]++
	return true
}

// ServeHTTP answers as the registry, for use in another server.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	record := newRequest(r)
	s.mu.Lock()
	s.requests = append(s.requests, record)
	q := s.quirks
	s.mu.Unlock()
	if strings.HasPrefix(r.URL.Path, "/v2/") && s.isOverLimit(w, q) {
		return
	}
	if q.NotARegistry {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "<html><body>"+strings.Repeat("no such page\n", 1000)+"</body></html>")
		return
	}
	if q.Token {
		if r.URL.Path == tokenPath {
			s.serveToken(w, r, q)
			return
		}
		if !s.admit(r, q) {
			s.challenge(w, r)
			return
		}
	} else if !hasPassword(r, q) {
		w.Header().Set("WWW-Authenticate", `Basic realm="registrytest"`)
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	}
	if q.Narrow && s.credentialed(r, q) {
		refuse(w, http.StatusForbidden, "DENIED", "permission denied")
		return
	}
	if r.URL.Path == "/v2/" {
		s.refuseWith(w, q, "LoginStatus", q.LoginStatus, q.LoginStatusCount)
		return
	}
	if s.refuseWith(w, q, "Status", q.Status, q.StatusCount) {
		return
	}
	rest := strings.TrimPrefix(r.URL.Path, "/v2/")
	if repository, name, ok := strings.Cut(rest, "/manifests/"); ok {
		s.serveManifest(w, repository, name, q)
		return
	}
	if repository, digest, ok := strings.Cut(rest, "/blobs/"); ok {
		s.serveBlob(w, r, record, repository+"@"+digest, q)
		return
	}
	refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "no such path")
}

func newRequest(r *http.Request) *Request {
	return &Request{Method: r.Method, Path: r.URL.Path, Header: r.Header.Clone(), Remote: r.RemoteAddr}
}

func hasPassword(r *http.Request, q Quirks) bool {
	user, password, sent := r.BasicAuth()
	switch {
	case q.Public && !sent:
		return true
	case q.Admits != nil:
		return q.Admits(user, password)
	}
	return q.User == "" || user == q.User && password == q.Password
}

// credentialed reports whether a request has a password, or a token that was issued
// for one.
func (s *Server) credentialed(r *http.Request, q Quirks) bool {
	if !q.Token {
		_, _, sent := r.BasicAuth()
		return sent
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// It is admitted already.
	return s.tokens.named[slices.Index(s.tokens.texts, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))+1]
}

// refuseWith answers with the status of a quirk, if it is set and shows, and
// reports whether it did.
func (s *Server) refuseWith(w http.ResponseWriter, q Quirks, quirk string, status, count int) bool {
	if status == 0 || !s.first(quirk, count) {
		return false
	}
	if q.RetryAfter > 0 {
		s.mu.Lock()
		s.busyUntil = time.Now().Add(time.Duration(q.RetryAfter) * time.Second)
		s.mu.Unlock()
		w.Header().Set("Retry-After", strconv.Itoa(q.RetryAfter))
	}
	refuse(w, status, "UNKNOWN", cmp.Or(q.RetryAfterText, http.StatusText(status)))
	return true
}

func (s *Server) serveManifest(w http.ResponseWriter, repository, name string, q Quirks) {
	separator := ":"
	if strings.Contains(name, ":") {
		separator = "@"
	}
	s.mu.Lock()
	m, ok := s.manifests[repository+separator+name]
	s.mu.Unlock()
	if !ok {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	stated, content := m.digest, m.content
	if q.WrongContentDigest {
		stated.Hex = strings.Repeat("0", 64)
	}
	if !q.NoContentDigest {
		w.Header().Set("Docker-Content-Digest", stated.String())
	}
	if q.CorruptManifest {
		content = append(bytes.Clone(content), ' ')
	}
	w.Header().Set("Content-Type", string(m.mediaType))
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	_, _ = w.Write(content)
}

func (s *Server) serveBlob(w http.ResponseWriter, r *http.Request, record *Request, name string, q Quirks) {
	s.mu.Lock()
	b, ok := s.blobs[name]
	if time.Now().Before(s.busyUntil) {
		s.tooEarly++
	}
	s.mu.Unlock()
	switch {
	case !ok:
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
	case b.config:
		s.serveContent(w, r, record, b, Quirks{CorruptBlob: q.CorruptConfig})
	case s.refuseWith(w, q, "BlobStatus", q.BlobStatus, q.BlobStatusCount):
	case q.Storage != nil:
		http.Redirect(w, r, q.Storage.sign(r.URL.Path), http.StatusTemporaryRedirect)
	case q.RedirectTo != "":
		http.Redirect(w, r, q.RedirectTo+r.URL.Path+"?"+Signature, http.StatusTemporaryRedirect)
	default:
		s.serveContent(w, r, record, b, q)
	}
}

// serveContent answers with a blob, for the registry and for its storage.
func (s *Server) serveContent(w http.ResponseWriter, r *http.Request, record *Request, b stored, q Quirks) {
	if q.NoAnswer && s.first("NoAnswer", q.NoAnswerCount) {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	if q.FirstByteDelay > 0 && s.first("FirstByteDelay", q.FirstByteDelayCount) {
		select {
		case <-time.After(q.FirstByteDelay):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	if r.Header.Get("Range") != "" && s.refuseWith(w, q, "RangeStatus", q.RangeStatus, q.RangeStatusCount) {
		return
	}
	if q.IgnoreRange {
		r.Header.Del("Range")
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	body := &faultyBody{ResponseWriter: w, server: s, request: r, record: record, quirks: q}
	http.ServeContent(body, r, "", time.Time{}, bytes.NewReader(q.blob(b.content)))
}

// refuse answers in the form of the distribution specification.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	body, _ := json.Marshal(map[string]any{"errors": []any{map[string]string{"code": code, "message": message}}})
	_, _ = fmt.Fprintln(w, string(body))
}
