package awstest

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// A Server is GitHub's OIDC endpoint, STS, ECR and ECR Public, on one port of
// 127.0.0.1.
type Server struct {
	listener net.Listener
	http     http.Server
	bearer   string // ACTIONS_ID_TOKEN_REQUEST_TOKEN

	mu          sync.Mutex
	quirks      Quirks
	requests    []Request
	happened    map[string]int // by name of the quirk
	secrets     []string
	serial      int
	idTokens    map[string]*idToken
	credentials map[string]*issued // by access key ID
	passwords   map[string]time.Time
}

// The services of a [Server], as in [Request.Service].
const (
	OIDC      = "oidc"
	STS       = "sts"
	ECR       = "ecr"
	ECRPublic = "ecr-public"
)

// A Request is one that a [Server] got.
type Request struct {
	// Service is one of the constants of this package.
	Service string
	Header  http.Header
	// Form is the query of a request to OIDC, the parameters of one to STS.
	Form url.Values
	// Body is the JSON of a request to ECR.
	Body string
	// Region is the one that a request to ECR is signed for.
	Region string
	// Refused is the code of the error that was answered; empty if none was.
	Refused string
}

// Start starts the servers. They end with [Server.Close].
func Start() (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{
		listener: l, happened: map[string]int{}, idTokens: map[string]*idToken{},
		credentials: map[string]*issued{}, passwords: map[string]time.Time{},
	}
	s.bearer = s.secret("request-token-")
	s.http.Handler = http.HandlerFunc(s.serve)
	go func() { _ = s.http.Serve(l) }() // ends with ErrServerClosed
	return s, nil
}

// New starts servers that end with the test.
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

// Close ends the servers and every connection to them.
func (s *Server) Close() { _ = s.http.Close() }

// URL returns the base URL of a service.
func (s *Server) URL(service string) string {
	return "http://" + s.listener.Addr().String() + "/" + service
}

// Env returns the environment of a job with `permissions: id-token: write` that
// meets these servers wherever it would meet GitHub and AWS: variables to set,
// some of them to the empty string to keep credentials of the machine out.
func (s *Server) Env() map[string]string {
	env := map[string]string{
		// As from GitHub: the query is there, the audience is to be added.
		"ACTIONS_ID_TOKEN_REQUEST_URL":   s.URL(OIDC) + "/token?api-version=2.0",
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN": s.bearer,
		"AWS_ENDPOINT_URL_STS":           s.URL(STS),
		"AWS_ENDPOINT_URL_ECR":           s.URL(ECR),
		"AWS_ENDPOINT_URL_ECR_PUBLIC":    s.URL(ECRPublic),
		"AWS_EC2_METADATA_DISABLED":      "true",
		"AWS_CONFIG_FILE":                os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE":    os.DevNull,

		"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
	}
	for _, name := range []string{
		"ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "REGION", "DEFAULT_REGION", "CA_BUNDLE",
		"WEB_IDENTITY_TOKEN_FILE", "ROLE_ARN", "ROLE_SESSION_NAME", "MAX_ATTEMPTS", "RETRY_MODE", "USE_FIPS_ENDPOINT",
		"USE_DUALSTACK_ENDPOINT", "CONTAINER_CREDENTIALS_RELATIVE_URI", "CONTAINER_CREDENTIALS_FULL_URI", "DEFAULTS_MODE",
	} {
		env["AWS_"+name] = ""
	}
	return env
}

// Setenv sets [Server.Env] for a test.
func (s *Server) Setenv(t interface{ Setenv(key, value string) }) {
	for key, value := range s.Env() {
		t.Setenv(key, value)
	}
}

// SetQuirks replaces what the servers do wrong.
func (s *Server) SetQuirks(q Quirks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quirks, s.happened = q, map[string]int{}
}

// Requests returns all requests to a service so far, in order.
func (s *Server) Requests(service string) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var of []Request
	for _, r := range s.requests {
		if r.Service == service {
			of = append(of, r)
		}
	}
	return of
}

// Happened returns how often a quirk showed since [Server.SetQuirks], by the
// name of its field, such as "STSThrottled". It counts those that have a
// ...Count.
func (s *Server) Happened(quirk string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.happened[quirk]
}

// Secrets returns every secret that was issued so far: ID tokens, secret
// access keys, session tokens, passwords, and these in the base64 of ECR;
// the first is the token of [Server.Env] that ID tokens are asked for with.
func (s *Server) Secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.secrets...)
}

// secret makes up a secret and notes it.
func (s *Server) secret(prefix string) string { return s.note(prefix + rand.Text() + rand.Text()) }

func (s *Server) note(secret string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = append(s.secrets, secret)
	return secret
}

// next returns 1, 2 and so on.
func (s *Server) next() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serial++
	return s.serial
}

// shows reports whether a quirk shall show, and counts it.
func (s *Server) shows(quirk string, on bool, count int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !on || count > 0 && s.happened[quirk] >= count {
		return false
	}
	s.happened[quirk]++
	return true
}

// A refusal is an error in the terms of AWS.
type refusal struct {
	status        int
	code, message string
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	service, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	request := Request{Service: service, Header: r.Header.Clone(), Form: r.URL.Query()}
	s.mu.Lock()
	q := s.quirks
	s.mu.Unlock()
	if service != OIDC {
		w.Header().Set("Date", s.now(q).UTC().Format(http.TimeFormat))
		w.Header().Set("X-Amzn-Requestid", fmt.Sprintf("00000000-0000-0000-0000-%012d", s.next()))
	}
	switch service {
	case OIDC:
		s.serveOIDC(w, r, &request, q)
	case STS:
		request.Form, _ = url.ParseQuery(string(body))
		s.serveSTS(w, r, &request, q)
	case ECR, ECRPublic:
		request.Body = string(body)
		s.serveECR(w, r, &request, q)
	default:
		http.NotFound(w, r)
	}
}

// record adds a request. It is called before the answer, so that a client that has
// an answer finds its request.
func (s *Server) record(r *Request, refused string) {
	r.Refused = refused
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, *r)
}

// cut records a request and closes its connection without an answer.
func (s *Server) cut(r *Request) {
	s.record(r, "cut")
	panic(http.ErrAbortHandler)
}

// now is the time by the clock of AWS.
func (s *Server) now(q Quirks) time.Time { return time.Now().Add(q.ClockSkew) }

func orElse[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}
