package registry

import (
	"crypto/x509"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/dockercache/dockercache/internal/httpclient"
	"github.com/dockercache/dockercache/internal/imagespec"
	"github.com/dockercache/dockercache/internal/redact"
	"github.com/dockercache/dockercache/internal/refname"
)

// Options of a [Client]. The zero value of each field works.
type Options struct {
	// Keychain has the credentials; a [Chain] has several for a registry, to be
	// tried in order. When the registry denies all of them, it is asked without a
	// credential, for the image may be public. An authn.Authenticator may be a
	// [Refuser]. Default: [DefaultChain].
	Keychain authn.Keychain
	// Transport makes the requests, without retries. It should use HTTP/1.1:
	// over HTTP/2 all ranges share one connection, which is logged as a warning.
	// Default: [DefaultTransport].
	Transport http.RoundTripper
	// PlainHTTP names the registries that may be spoken to without TLS, besides
	// those on loopback: HOST:PORT, or HOST for any port. Default: none.
	PlainHTTP []string
	// AllowLocal lets a registry lead to this machine, the link (169.254.0.0/16,
	// where clouds have their metadata) and addresses of private networks, by a
	// redirect or as its token server. Otherwise only a registry that is itself
	// there may lead there. What counts is the address that is dialled; with a
	// Transport that is no *http.Transport, and through a proxy, which resolves
	// names itself, it is the text of the host alone. Default: off.
	AllowLocal bool
	// CAs are trusted beside the system's, see [ReadCAs]. They and CertDirs are
	// without effect on a Transport that is no *http.Transport. Default: none.
	CAs []*x509.Certificate
	// CertDirs contain a directory HOST or HOST:PORT for each registry that has
	// certificates of its own: *.crt are CAs that are trusted beside the system's
	// for all that is asked for the registry; a *.cert with its *.key is sent to
	// the registry itself. A file that cannot be used is logged as a warning.
	// Default: those of Docker and podman (/etc/docker/certs.d,
	// /etc/containers/certs.d, and the user's own); an empty list, not nil, is
	// none.
	CertDirs []string
	// RetryWait is the wait before a request that failed is repeated the first
	// time; it doubles with each repetition. A host that refuses requests is waited for
	// as long as it asks for, see the package documentation. Default: 500 ms.
	RetryWait time.Duration
	// FirstByteTimeout is how long the first byte of a blob may take before the request is
	// abandoned: a registry that is a cache may fetch the whole of it first. It counts
	// from the request to the first byte of the body; after the header at least StallTimeout
	// is left. A redirect and the answer where it leads have as long each. Default: 5 min.
	FirstByteTimeout time.Duration
	// StallTimeout is how long the next byte of an answer may take before the request is
	// abandoned. An answer that is no blob may take four times as long in all, its first
	// byte included, and a config as long after its header. To connect may take as long as
	// a byte, and with [DefaultTransport] 10 s, and 10 s more for TLS. Default: 15 s.
	StallTimeout time.Duration
	// MirrorsMustAgree makes [Client.Resolve] ask the last reference too, the
	// image's own registry, and fail with [ErrDisagree] unless it has the same
	// image. Default: a mirror is trusted.
	MirrorsMustAgree bool
	// AllSources makes ranges of blobs come from all references that have the
	// image at once: a caller of [Image.EachOrigin] gives each what it can carry, and
	// [Image.ReadRange] takes the one with the fewest ranges in flight. It pays where a
	// registry as a whole is slower than this machine. Default: the first one serves all
	// ranges that it can; one that is slow loses ranges to the next, if the caller
	// measures them.
	AllSources bool
	// Logger gets what is tried and what is given up, without secrets. Default:
	// none.
	Logger *slog.Logger
	// Secret is called with each secret once it is known and before it is sent,
	// for a CI system that hides it in the output of other programs: passwords,
	// also in the base64 in which they are sent with their user, identity tokens,
	// and the tokens that are given for any of these. It is called by one
	// goroutine at a time and must not call the client. Default: no call.
	Secret func(string)
}

// A Client resolves references and reads blobs. It is safe for concurrent use,
// and keeps the tokens that it was given for its lifetime.
type Client struct {
	shared
	options Options

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
	if c.options.Transport == nil {
		c.options.Transport = DefaultTransport()
	}
	if c.options.RetryWait <= 0 {
		c.options.RetryWait = 500 * time.Millisecond
	}
	if c.options.FirstByteTimeout <= 0 {
		c.options.FirstByteTimeout = 5 * time.Minute
	}
	if c.options.StallTimeout <= 0 {
		c.options.StallTimeout = 15 * time.Second
	}
	c.secrets = &redact.Secrets{Notify: c.options.Secret}
	c.log = slog.New(slog.DiscardHandler)
	if c.options.Logger != nil {
		c.log = slog.New(c.secrets.Handler(c.options.Logger.Handler()))
	}
	if c.options.CertDirs == nil {
		c.options.CertDirs = defaultCertDirs()
	}
	c.allowLocal = c.options.AllowLocal
	base := &guard{base: c.options.Transport, allowLocal: c.allowLocal, certs: &certs{dirs: c.options.CertDirs, cas: c.options.CAs, log: c.log}}
	below, gates := newTransport(base, &c.options, c.log)
	c.transport, c.gates = transport.NewUserAgent(below, "dockercache"), gates
	return c
}

// parse checks a reference against the grammar of distribution/reference and
// returns it complete, with the repository that it is in.
func (c *Client) parse(ref string) (reference.Named, *repository, error) {
	named, err := refname.Parse(ref)
	if err != nil {
		return nil, nil, invalidReference(ref, ErrInvalidReference, err)
	}
	if d, ok := named.(reference.Digested); ok {
		if _, err := imagespec.Digest(d.Digest().String()); err != nil {
			return nil, nil, invalidReference(ref, ErrUnsupported, err)
		}
	}
	named = reference.TagNameOnly(named)
	r, err := c.repository(named)
	if err != nil {
		return nil, nil, invalidReference(ref, ErrInvalidReference, err)
	}
	return named, r, nil
}

func invalidReference(ref string, kind, err error) error {
	return &Error{Op: "parse", Source: strconv.Quote(refname.Printable(ref)), Kind: kind, Err: err}
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
	r := &repository{sessions: sessions{shared: &c.shared, name: named.Name(), repo: repo, origin: newOrigin(repo.RegistryStr()), health: health{now: time.Now}}}
	c.repositories[named.Name()] = r
	return r, nil
}
