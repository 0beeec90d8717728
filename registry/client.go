package registry

import (
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/dockercache/dockercache/internal/httpclient"
	"github.com/dockercache/dockercache/internal/redact"
)

// Options of a [Client]. The zero value of each field works.
type Options struct {
	// Keychain gives the credentials; a [Chain] gives several for a registry, to
	// be tried in order. Whatever it gives, a registry that denies it is asked
	// without a credential at last, for the image may be public. Default:
	// [DefaultChain].
	//
	// A credential that ends is asked for again when the registry denies it. If
	// its authn.Authenticator has a method Refused(authn.AuthConfig), that is
	// told first, so that a keychain can forget what it keeps.
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
	// MirrorsMustAgree makes [Client.Resolve] ask the last reference too, the
	// image's own registry, and fail with [ErrDisagree] unless it has the same
	// image. Default: a mirror is trusted.
	MirrorsMustAgree bool
	// AllSources makes ranges of blobs come from all references that have the
	// image at once, each range from the one with the fewest under way. It pays
	// where a registry as a whole is slower than this machine. Default: the
	// first gives all that it can.
	AllSources bool
	// Logger is told what is tried and what is given up. Default: silent.
	Logger *slog.Logger
	// Secret is told each secret once it is known and before it is sent, for a CI
	// system that shall hide it in what other programs print: passwords, also in
	// the base64 in which they are sent with their user, identity tokens, and the
	// tokens that are given for any of these. It is called by one goroutine at a
	// time and must not call the client. Default: nobody is told.
	Secret func(string)
}

// A Client talks to registries. It is safe for concurrent use, and keeps the
// tokens that it was given for its lifetime.
type Client struct {
	options   Options
	chain     Chain
	transport http.RoundTripper // with retries, without credentials
	secrets   *redact.Secrets   // nil if nobody wants them

	mu           sync.Mutex
	repositories map[string]*repository
}

// New returns a client. Nil options are the defaults.
func New(options *Options) *Client {
	c := &Client{repositories: map[string]*repository{}}
	if options != nil {
		c.options = *options
	}
	switch k := c.options.Keychain.(type) {
	case nil:
		c.chain = DefaultChain()
	case Chain:
		c.chain = k
	default:
		c.chain = Chain{{"keychain", k}}
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
	if c.options.Secret != nil {
		c.secrets = &redact.Secrets{Notify: c.options.Secret}
	}
	c.transport = transport.NewUserAgent(newTransport(c.options), "dockercache")
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
	if host := reference.Domain(named); allows(c.options.PlainHTTP, host) || httpclient.IsLoopback(hostOf(host)) {
		options = append(options, name.Insecure)
	}
	repo, err := name.NewRepository(named.Name(), options...)
	if err != nil {
		return nil, err
	}
	r := &repository{client: c, name: named.Name(), repo: repo, health: health{now: time.Now}}
	c.repositories[named.Name()] = r
	return r, nil
}
