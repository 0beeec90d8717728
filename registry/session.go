package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/singleflight"

	"github.com/dockercache/dockercache/internal/redact"
	"github.com/dockercache/dockercache/internal/wait"
)

// A session is the result of a login: a client that sends what the registry
// wants, and the scheme that the registry answered to.
type session struct {
	*http.Client
	scheme     string
	credential credential
	worked     atomic.Bool // the registry has answered to it
}

// shared is what all repositories of a client have in common.
type shared struct {
	chain     Chain
	transport http.RoundTripper // with retries, without credentials
	secrets   *redact.Secrets   // nil if nothing is called with them
	log       *slog.Logger
	http2     sync.Once // warns of ranges over HTTP/2
}

// sessions are the sessions of one repository. It is safe for concurrent use.
type sessions struct {
	*shared
	name   string // complete, as in references: docker.io/library/debian
	repo   name.Repository
	health health

	logins    singleflight.Group
	challenge atomic.Pointer[transport.Challenge] // nil until the registry was asked
	current   atomic.Pointer[session]             // the one that worked last, or is tried first; nil if none
}

// first returns the session that a request is tried with first.
func (l *sessions) first(ctx context.Context) (*session, error) {
	if s := l.current.Load(); s != nil {
		return s, nil
	}
	s, err := l.open(ctx, 0)
	if err == nil {
		l.current.CompareAndSwap(nil, s)
	}
	return s, err
}

// open logs in with the first credential, from a place in the chain on, that
// the token server does not deny. Callers that come while a login is in flight
// wait for it, no longer than their own contexts allow.
func (l *sessions) open(ctx context.Context, from int) (*session, error) {
	// The login is for all callers, so it does not end with the first one's context.
	login := l.logins.DoChan(fmt.Sprint(from), func() (any, error) {
		// With retries, even for a range of a blob: a failure is remembered.
		ctx := context.WithValue(context.WithoutCancel(ctx), onceKey{}, nil)
		s, err := l.tryCredentials(ctx, from)
		if err != nil && from == 0 {
			l.health.fail(err)
		}
		return s, err
	})
	select {
	case done := <-login:
		if done.Err != nil {
			return nil, done.Err
		}
		return done.Val.(*session), nil
	case <-ctx.Done():
		return nil, wait.Err(ctx)
	}
}

// maxRenewals is how often one request or login is tried with another credential
// of the same keychain. Once is the rule; a keychain that returns another one each
// time must not be asked for ever.
const maxRenewals = 3

func (l *sessions) tryCredentials(ctx context.Context, from int) (*session, error) {
	var denied denials
	for renewals := 0; ; {
		// Before the registry is asked: without a credential there is no need to.
		c, err := l.chain.find(ctx, l.repo, from)
		switch {
		case err != nil && c.anonymous() && len(denied) == 0 && from == 0:
			return nil, &Error{Op: "find credentials for", Source: l.repo.RegistryStr(), Kind: ErrNoCredentials, Err: redact.Error(err)}
		case err != nil: // a later keychain has a credential, or an earlier one's was denied
			l.log.WarnContext(ctx, "a keychain failed", "source", l.name, "error", redact.Text(err.Error()))
		}
		challenge, err := l.ping(ctx)
		if err != nil {
			return nil, err
		}
		var sent *authn.AuthConfig
		s, err := l.login(context.WithValue(ctx, sentKey{}, &sent), challenge, c)
		if err == nil {
			return s, nil
		}
		if denied = append(denied, denial{c.name, c.failed, err}); !isDenied(err) || c.anonymous() {
			return nil, denied
		}
		if renewals < maxRenewals && c.renewed(ctx, sent) {
			renewals++
			continue
		}
		l.log.InfoContext(ctx, "credential denied", "source", l.name, "credential", c.name, "error", redact.Text(err.Error()))
		renewals, from = 0, c.from+1
	}
}

// ping asks the registry which authentication it wants, once.
func (l *sessions) ping(ctx context.Context) (*transport.Challenge, error) {
	if c := l.challenge.Load(); c != nil {
		return c, nil
	}
	c, err := transport.Ping(ctx, l.repo.Registry, l.transport)
	if err == nil {
		l.challenge.Store(c)
	}
	return c, err
}

// login returns a session that satisfies the registry for pulls. A Bearer token
// is renewed when the registry answers 401; a keychain is asked for a Basic
// credential with each request.
func (l *sessions) login(ctx context.Context, challenge *transport.Challenge, c credential) (*session, error) {
	var rt http.RoundTripper
	var err error
	auth := authn.Anonymous // its token is no secret, everybody gets one
	if !c.anonymous() {
		c.secrets = l.secrets
		auth = c
	}
	if strings.EqualFold(challenge.Scheme, "bearer") {
		rt, err = newBearer(ctx, l.transport, l.repo, auth, challenge, c.secrets)
	} else {
		rt, err = transport.FromToken(l.repo.Registry, auth, l.transport, challenge, nil)
	}
	if err != nil {
		return nil, err
	}
	scheme := "https"
	if challenge.Insecure {
		scheme = "http"
	}
	l.log.DebugContext(ctx, "logged in", "source", l.name, "credential", c.name)
	return &session{Client: &http.Client{Transport: rt, CheckRedirect: checkRedirect}, scheme: scheme, credential: c}, nil
}

// instead returns what to try when the registry denies a request of s: the
// session that another request found meanwhile; what the keychain returns in place
// of what was sent, or all keychains again, for credentials end; then the next one
// of the chain, and last no credential. It returns nil when nothing is left. tried
// has s and all before it.
func (l *sessions) instead(ctx context.Context, s *session, sent *authn.AuthConfig, tried []*session) (*session, error) {
	if current := l.current.Load(); current != nil && current.worked.Load() && !slices.Contains(tried, current) {
		return current, nil
	}
	switch {
	case s.credential.anonymous():
		return nil, nil
	case len(tried) <= maxRenewals && s.credential.renewed(ctx, sent):
		return s, nil // which asks the keychain again
	case s == tried[0] && s.worked.Load():
		return l.open(ctx, 0)
	}
	return l.open(ctx, s.credential.from+1)
}

// answered remembers the session that the registry answers to.
func (l *sessions) answered(ctx context.Context, s *session, denied denials) {
	l.current.Store(s)
	if !s.worked.Swap(true) {
		l.log.InfoContext(ctx, "answered", "source", l.name, "credential", s.credential.name)
	}
	for _, d := range denied {
		l.log.InfoContext(ctx, "the credential before was denied", "source", l.name, "denied", d.credential, "answered", s.credential.name, "error", redact.Text(d.err.Error()))
	}
}

// forget drops sessions that were denied before they were ever answered: the next
// request begins with the keychains, which may have another credential by then.
func (l *sessions) forget(tried []*session) {
	for _, s := range tried {
		if !s.worked.Load() {
			l.current.CompareAndSwap(s, nil)
		}
	}
}

// A bearer sends a token with each request to its registry and renews it when the
// registry answers 401. That of go-containerregistry renews it once for each of
// the requests in flight: sixteen ranges, sixteen tokens.
type bearer struct {
	inner     http.RoundTripper
	repo      name.Repository
	challenge *transport.Challenge
	secrets   *redact.Secrets

	mu    sync.Mutex
	auth  authn.Authenticator
	token string
}

// newBearer returns a transport that has a token already.
func newBearer(ctx context.Context, inner http.RoundTripper, repo name.Repository, auth authn.Authenticator, challenge *transport.Challenge, secrets *redact.Secrets) (*bearer, error) {
	b := &bearer{inner: inner, repo: repo, auth: auth, challenge: challenge, secrets: secrets}
	// Checks whether a credential may be sent to the token server at all.
	if _, err := transport.FromToken(repo.Registry, auth, inner, challenge, &transport.Token{}); err != nil {
		return nil, b.malformed(err)
	}
	_, err := b.other(ctx, "")
	return b, err
}

func (b *bearer) malformed(err error) error {
	return &Error{Op: "get a token for", Source: b.repo.Name(), Kind: ErrInvalidAnswer, Err: redact.Error(err)}
}

func (b *bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != b.repo.RegistryStr() {
		return b.inner.RoundTrip(req) // where the registry redirected to
	}
	b.mu.Lock()
	token := b.token
	b.mu.Unlock()
	resp, err := b.send(req, token)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	_ = resp.Body.Close()
	if token, err = b.other(req.Context(), token); err != nil {
		return nil, err
	}
	return b.send(req, token)
}

func (b *bearer) send(req *http.Request, token string) (*http.Response, error) {
	req = req.Clone(req.Context()) // a RoundTripper must not change its request
	req.Header.Set("Authorization", "Bearer "+token)
	return b.inner.RoundTrip(req)
}

// other returns a token other than the one that is no longer good: a new one,
// unless another request has got one meanwhile.
func (b *bearer) other(ctx context.Context, bad string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.token != bad {
		return b.token, nil
	}
	config, err := authn.Authorization(ctx, b.auth)
	if err != nil {
		return "", err
	}
	if config.RegistryToken != "" { // the keychain has the token itself
		b.token = config.RegistryToken
		return b.token, nil
	}
	got, err := transport.Exchange(context.WithValue(ctx, tokenKey{}, true), b.repo.Registry, b.auth, b.inner, []string{b.repo.Scope(transport.PullScope)}, b.challenge)
	switch {
	case isMalformedToken(err):
		return "", b.malformed(err)
	case err != nil:
		return "", err
	}
	token := cmp.Or(got.AccessToken, got.Token) // the first as OAuth 2.0 calls it
	if strings.ContainsFunc(token, func(r rune) bool { return r < '!' || r > '~' }) {
		return "", b.malformed(errors.New("the token has characters that no header may have"))
	}
	b.secrets.Add(token, got.RefreshToken)
	b.token = token
	if got.RefreshToken != "" {
		b.auth = authn.FromConfig(authn.AuthConfig{IdentityToken: got.RefreshToken})
	}
	return b.token, nil
}

// isMalformedToken reports whether a token server answered without a token.
// go-containerregistry has no type for that.
func isMalformedToken(err error) bool {
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	var away *awayError
	return errors.As(err, &syntax) || errors.As(err, &mismatch) || errors.As(err, &away) ||
		err != nil && strings.Contains(err.Error(), "no token in bearer response")
}
