package artifactstest

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
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

func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	q := s.record(r, false)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	now := time.Now()
	if q.Now != 0 {
		now = time.Unix(q.Now, 0)
	}
	w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
	switch {
	case q.RateLimit != 0 && s.first("RateLimit", q.RateLimitCount):
		refuseForNow(w, q, now)
	case q.Token != "" && r.Header.Get("Authorization") != "Bearer "+q.Token:
		say(w, http.StatusUnauthorized, "Bad credentials")
	case q.MovedTo != "":
		w.Header().Set("Location", q.MovedTo)
		say(w, http.StatusMovedPermanently, "Moved Permanently")
	case q.Status != 0 && s.first("Status", q.StatusCount):
		say(w, q.Status, http.StatusText(q.Status))
	case q.Page != "":
		_, _ = w.Write([]byte(q.Page))
	case q.NoPermission || !s.route(w, r, q):
		say(w, http.StatusNotFound, "Not Found")
	}
}

func refuseForNow(w http.ResponseWriter, q Quirks, now time.Time) {
	message := "You have exceeded a secondary rate limit"
	if q.Reset != 0 {
		message = "API rate limit exceeded"
		w.Header().Set("X-RateLimit-Remaining", "0")
		w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(now.Unix()+int64(q.Reset), 10))
	}
	if q.RetryAfter != 0 {
		w.Header().Set("Retry-After", strconv.Itoa(q.RetryAfter))
	}
	say(w, q.RateLimit, message)
}

func say(w http.ResponseWriter, status int, message string) {
	w.WriteHeader(status)
	_, _ = w.Write(marshal(map[string]string{"message": message}))
}

// route answers a request, or tells that there is no such thing.
func (s *Server) route(w http.ResponseWriter, r *http.Request, q Quirks) bool {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, prefix+"/repos/"), "/")
	if len(parts) < 5 || parts[2] != "actions" {
		return false
	}
	repository := parts[0] + "/" + parts[1]
	id, _ := strconv.ParseInt(parts[4], 10, 64)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch rest := strings.Join(append([]string{parts[3]}, parts[5:]...), "/"); rest {
	case "runs", "runs/artifacts":
		run, ok := s.runs[id]
		if !ok || !strings.EqualFold(run.Repository, repository) {
			return false
		}
		if rest == "runs" {
			if q.OtherRepository != "" {
				run.Repository = q.OtherRepository
			}
			_, _ = w.Write(marshal(run.object()))
			return true
		}
		s.list(w, r, q, id)
		return true
	case "artifacts/zip":
		for _, a := range s.artifacts {
			if a.id == id && strings.EqualFold(s.runs[a.run].Repository, repository) {
				s.redirect(w, q, a)
				return true
			}
		}
	}
	return false
}

// list answers with a page of a run's artifacts, the newest first.
func (s *Server) list(w http.ResponseWriter, r *http.Request, q Quirks, run int64) {
	all := []map[string]any{}
	for i := len(s.artifacts) - 1; i >= 0; i-- {
		if a := s.artifacts[i]; a.run == run {
			object := a.object()
			if q.OtherRun {
				object["workflow_run"] = map[string]any{"id": run + 1}
			}
			all = append(all, object)
		}
	}
	size, _ := strconv.Atoi(r.URL.Query().Get("per_page"))
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	if size = min(max(size, 1), 100); q.PageSize > 0 {
		size = min(size, q.PageSize)
	}
	from := min(len(all), (max(page, 1)-1)*size)
	_, _ = w.Write(marshal(map[string]any{"total_count": len(all) + q.TooMany, "artifacts": all[from:min(len(all), from+size)]}))
}

// redirect answers a download. Each URL is good once, where the real one is good
// for a minute.
func (s *Server) redirect(w http.ResponseWriter, q Quirks, a *stored) {
	if q.Gone || a.Expired {
		say(w, http.StatusGone, "Artifact has expired")
		return
	}
	s.urls++
	to := q.RedirectTo
	if to == "" {
		to = "http://" + s.blobs.Addr().String()
	}
	w.Header().Set("Location", fmt.Sprintf("%s/blob/%d?n=%d&%s", to, a.id, s.urls, Signature))
	w.WriteHeader(http.StatusFound)
}
