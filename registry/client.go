package registry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Options of a [Client]. The zero value of each field works.
type Options struct {
	// Keychain gives the credentials. Default: Docker's config file and its
	// credential helpers, else none.
	Keychain authn.Keychain
	// Transport makes the requests, without retries. Default: HTTP/1.1 through
	// the proxy that the environment names, with a limit of 10 s on connecting.
	Transport http.RoundTripper
	// PlainHTTP names the registries that may be spoken to without TLS, beside
	// those on loopback: HOST:PORT, or HOST for any port. Default: none.
	PlainHTTP []string
	// RetryWait is the wait before a request that failed is repeated the first
	// time; it doubles with each repetition. Default: 500 ms.
	RetryWait time.Duration
	// StallTimeout is how long an answer, or the next byte of one, may take
	// before the request is abandoned. Default: 15 s.
	StallTimeout time.Duration
	// Logger is told what is tried and what is given up. Default: silent.
	Logger *slog.Logger
}

// A Client talks to registries. It is safe for concurrent use, and keeps the
// tokens that it was given for its lifetime.
type Client struct {
	options   Options
	transport http.RoundTripper // with retries, without credentials

	mu           sync.Mutex
	repositories map[string]*repository
}

// New returns a client. Nil options are the defaults.
func New(options *Options) *Client {
	c := &Client{repositories: map[string]*repository{}}
	if options != nil {
		c.options = *options
	}
	if c.options.Keychain == nil {
		c.options.Keychain = authn.DefaultKeychain
	}
	if c.options.RetryWait == 0 {
		c.options.RetryWait = 500 * time.Millisecond
	}
	if c.options.StallTimeout == 0 {
		c.options.StallTimeout = 15 * time.Second
	}
	if c.options.Logger == nil {
		c.options.Logger = slog.New(slog.DiscardHandler)
	}
	c.transport = newTransport(c.options)
	return c
}

// parse checks a reference against the grammar of distribution/reference and
// returns it complete, with the repository that it is in.
func (c *Client) parse(ref string) (reference.Named, *repository, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, nil, &Error{Op: "parse", Source: fmt.Sprintf("%q", ref), Kind: ErrReference, Err: err}
	}
	named = reference.TagNameOnly(named)
	r, err := c.repository(named)
	if err != nil {
		return nil, nil, &Error{Op: "parse", Source: fmt.Sprintf("%q", ref), Kind: ErrReference, Err: err}
	}
	return named, r, nil
}

// repository returns the one repository value for a name, so that its token is
// asked for once.
func (c *Client) repository(named reference.Named) (*repository, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.repositories[named.Name()]; ok {
		return r, nil
	}
	var options []name.Option
	if host := reference.Domain(named); allows(c.options.PlainHTTP, host) || isLoopback(hostOf(host)) {
		options = append(options, name.Insecure)
	}
	repo, err := name.NewRepository(named.Name(), options...)
	if err != nil {
		return nil, err
	}
	r := &repository{client: c, name: named.Name(), repo: repo}
	c.repositories[named.Name()] = r
	return r, nil
}

// A session is what a login gives: a client that has what the registry wants,
// and the scheme that the registry answered to.
type session struct {
	*http.Client
	scheme string
}

// login finds out what a registry wants and returns a client that satisfies it
// for pulls from repo. A Bearer token is renewed when the registry says 401.
func (c *Client) login(ctx context.Context, repo name.Repository) (*session, error) {
	auth, err := authn.Resolve(ctx, c.options.Keychain, repo)
	if err != nil {
		return nil, &Error{Op: "find credentials for", Source: repo.RegistryStr(), Kind: ErrCredentials, Err: err}
	}
	inner := transport.NewUserAgent(c.transport, "dockercache")
	challenge, err := transport.Ping(ctx, repo.Registry, inner)
	if err != nil {
		return nil, err
	}
	var rt http.RoundTripper
	if strings.EqualFold(challenge.Scheme, "bearer") {
		rt, err = newBearer(ctx, inner, repo, auth, challenge)
	} else {
		rt, err = transport.FromToken(repo.Registry, auth, inner, challenge, nil)
	}
	if err != nil {
		return nil, err
	}
	scheme := "https"
	if challenge.Insecure {
		scheme = "http"
	}
	return &session{&http.Client{Transport: rt, CheckRedirect: checkRedirect}, scheme}, nil
}
