package artifactstest

import (
	"net"
	"net/http"
	"sync"
)

// prefix is where the API is below its origin, as on GitHub Enterprise Server.
const prefix = "/api/v3"

// A Server is the Actions API and, on another port of 127.0.0.1, the storage that
// it redirects downloads to. It is safe for concurrent use.
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
	urls      int // of the storage, so far
	used      map[int]bool
}

// A Request is one that a [Server] received.
type Request struct {
	// Storage reports whether it was to the storage.
	Storage bool
	Method  string
	Path    string
	Query   string
	Header  http.Header
}

// Start starts a server. The caller closes it by [Server.Close].
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

// New starts a server that is closed at the end of the test.
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

// Close closes the server and every connection to it.
func (s *Server) Close() { _, _ = s.api.Close(), s.storage.Close() }

// URL returns the value for GITHUB_API_URL.
func (s *Server) URL() string { return "http://" + s.apiAt.Addr().String() + prefix }

// StorageHost returns HOST:PORT of the storage.
func (s *Server) StorageHost() string { return s.blobs.Addr().String() }

// Env returns the variables, as NAME=VALUE, that make a program use the server.
func (s *Server) Env() []string {
	return []string{"GITHUB_API_URL=" + s.URL(), "GITHUB_TOKEN=" + s.currentQuirks().Token}
}

// AddRun adds a run and returns it with all defaults, and with an ID.
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
// all earlier ones.
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

// SetQuirks replaces the server's faults.
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

// Happened returns how often a quirk happened since [Server.SetQuirks], by the
// name of its field, such as "CutBody". It counts those that have a ...Count.
func (s *Server) Happened(quirk string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.happened[quirk]
}

// first counts a quirk, and reports whether it is to happen.
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

// Quirks are the faults of a [Server]. The zero value has none.
//
// A quirk with a field ...Count beside it happens so many times after
// [Server.SetQuirks] and then no more; 0 means every time. [Server.Happened]
// returns how often it did.
type Quirks struct {
	// Token, when not empty, is the only one that is accepted; others get 401.
	Token string
	// NoPermission answers 404, as the API does to a token without the
	// permission "actions: read" and for a repository that is not there.
	NoPermission bool
	// MovedTo, when not empty, answers every request with 301 to this URL, as
	// for a repository that was renamed.
	MovedTo string
	// Status, when not 0, answers every request to the API.
	Status      int
	StatusCount int
	// Page, when not empty, is the body of a 200 that answers every request.
	Page string

	// RateLimit, when not 0, is the status of an exhausted rate limit: 403 or
	// 429. Without the other fields it is a limit without a time.
	RateLimit      int
	RateLimitCount int
	// Reset, when not 0, is the number of seconds until the limit ends, in the
	// headers of a primary limit.
	Reset int
	// RetryAfter, when not 0, is the same in the header of a secondary limit.
	RetryAfter int
	// Now is the server's clock in seconds since 1970, when not 0.
	Now int64

	// PageSize, when not 0, is how many artifacts a page has at most, also if the
	// request asks for more.
	PageSize int
	// TooMany is added to the number of artifacts that the list states.
	TooMany int
	// OtherRun states another run in each artifact of a list.
	OtherRun bool
	// OtherRepository, when not empty, is the repository that runs state.
	OtherRepository string

	// RedirectTo, when not empty, is where downloads are redirected to.
	RedirectTo string
	// Gone answers downloads with 410.
	Gone bool
	// ExpiredURL makes URLs of the storage expire at once.
	ExpiredURL      bool
	ExpiredURLCount int
	// StorageStatus, when not 0, answers requests to the storage.
	StorageStatus      int
	StorageStatusCount int
	// CutBody closes the connection in the middle of a download.
	CutBody      bool
	CutBodyCount int
	// WrongBytes changes the last byte of a download.
	WrongBytes      bool
	WrongBytesCount int
	// ShortBody sends downloads without their last byte, with the length of that.
	ShortBody bool
	// Download, when not nil, gets a value before each download, which then sends
	// nothing: for a test of what happens in the middle of one.
	Download chan<- struct{} `json:"-"`
}

// Signature is in each URL of the storage. No log line or error may contain it.
const Signature = "sig=TOP-SECRET-SIGNATURE"
