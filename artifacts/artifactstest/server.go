package artifactstest

import (
	"net"
	"net/http"
	"sync"
)

// prefix is where the API is below its origin, as on GitHub Enterprise Server.
const prefix = "/api/v3"

// A Server is the Actions API and, on another port of 127.0.0.1, the storage
// that it redirects downloads to.
type Server struct {
	api, storage http.Server
	apiAt, blobs net.Listener

	mu        sync.Mutex
	quirks    Quirks
	runs      map[int64]Run
	artifacts []*stored
	lastID    int64
	requests  []Request
	happened  map[string]int
	urls      int // that were given out
	used      map[int]bool
}

// A Request is what a [Server] was asked.
type Request struct {
	// Storage tells whether it came to the storage.
	Storage bool
	Method  string
	Path    string
	Query   string
	Header  http.Header
}

// Start starts a server. It ends with [Server.Close].
func Start() (*Server, error) {
	s := &Server{runs: map[int64]Run{}, happened: map[string]int{}, used: map[int]bool{}, lastID: 1000}
	var err error
	if s.apiAt, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	if s.blobs, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		s.apiAt.Close()
		return nil, err
	}
	s.api.Handler = http.HandlerFunc(s.serveAPI)
	s.storage.Handler = http.HandlerFunc(s.serveStorage)
	go func() { _ = s.api.Serve(s.apiAt) }() // end with ErrServerClosed
	go func() { _ = s.storage.Serve(s.blobs) }()
	return s, nil
}

// New starts a server that ends with the test.
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
func (s *Server) Close() { _, _ = s.api.Close(), s.storage.Close() }

// URL is what GITHUB_API_URL would be.
func (s *Server) URL() string { return "http://" + s.apiAt.Addr().String() + prefix }

// StorageHost is HOST:PORT of the storage.
func (s *Server) StorageHost() string { return s.blobs.Addr().String() }

// Env returns the variables, as NAME=VALUE, that make a program use the server.
func (s *Server) Env() []string {
	return []string{"GITHUB_API_URL=" + s.URL(), "GITHUB_TOKEN=" + s.currentQuirks().Token}
}

// AddRun adds a run and returns it complete, with the ID that it got if it has
// none.
func (s *Server) AddRun(r Run) Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.ID == 0 {
		s.lastID++
		r.ID = s.lastID
	}
	r = r.withDefaults()
	s.runs[r.ID] = r
	return r
}

// AddArtifact adds an artifact to a run and returns its ID, which is higher than
// all before.
func (s *Server) AddArtifact(run Run, a Artifact) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	if a.Raw == nil {
		a.Raw = Zip(a.Files)
	}
	if a.ContentType == "" {
		a.ContentType = "application/zip"
	}
	s.artifacts = append(s.artifacts, &stored{a, s.lastID, run.ID})
	return s.lastID
}

// SetQuirks replaces what the server does wrong.
func (s *Server) SetQuirks(q Quirks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quirks, s.happened = q, map[string]int{}
}

func (s *Server) currentQuirks() Quirks {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.quirks
}

// Requests returns all requests so far, in order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Happened returns how often a quirk showed since [Server.SetQuirks], by the
// name of its field, such as "CutBody". It counts those that have a ...Count.
func (s *Server) Happened(quirk string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.happened[quirk]
}

// first counts that a quirk shows, and tells whether it shall.
func (s *Server) first(quirk string, count int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if count > 0 && s.happened[quirk] >= count {
		return false
	}
	s.happened[quirk]++
	return true
}

func (s *Server) record(r *http.Request, storage bool) Quirks {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, Request{storage, r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone()})
	return s.quirks
}
