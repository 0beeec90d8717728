package registry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
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
	gates     *gates            // of it
	secrets   *redact.Secrets
	log       *slog.Logger
	http2     sync.Once // warns of ranges over HTTP/2

	allowLocal bool // Options.AllowLocal
}

// sessions are the sessions of one repository. It is safe for concurrent use.
type sessions struct {
	*shared
	name   string // complete, as in references: docker.io/library/debian
	repo   name.Repository
	health health

	origin *origin

	logins   singleflight.Group
	greeting atomic.Pointer[greeting] // nil until the registry was asked
	current  atomic.Pointer[session]  // the one that worked last, or is tried first; nil if none
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
	login := l.logins.DoChan(fmt.Sprint(from), func() (any, error) {
		ctx := context.WithValue(forLogin(ctx), originKey{}, l.origin)
		ctx = context.WithValue(ctx, warnKey{}, func(err error) { l.log.WarnContext(ctx, "a login is passed over", "error", err) })
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
			return nil, &Error{Op: "find credentials for", Source: l.repo.RegistryStr(), Kind: ErrNoCredentials, Err: l.secrets.Error(err)}
		case err != nil: // a later keychain has a credential, or an earlier one's was denied
			l.log.WarnContext(ctx, "a keychain failed", "source", l.name, "error", err)
		}
		greeting, err := l.greet(ctx)
		if err != nil {
			return nil, err
		}
		var sent *authn.AuthConfig
		s, err := l.login(context.WithValue(ctx, sentKey{}, &sent), greeting, c)
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
		l.log.InfoContext(ctx, "credential denied", "source", l.name, "credential", c.name, "error", withoutRequest(err))
		renewals, from = 0, c.from+1
	}
}

// greet asks the registry which authentication it wants, once.
func (l *sessions) greet(ctx context.Context) (*greeting, error) {
	if g := l.greeting.Load(); g != nil {
		return g, nil
	}
	g, err := greet(ctx, l.repo.Registry, l.transport)
	if err == nil {
		l.greeting.Store(g)
	}
	return g, err
}

// login returns a session with a credential. It has a token already if the registry
// has asked for one.
func (l *sessions) login(ctx context.Context, greeting *greeting, c credential) (*session, error) {
	c.secrets = l.secrets
	a := &authorizer{sessions: l, insecure: greeting.insecure, credential: c, hosts: map[string]*access{}}
	if err := a.prepare(ctx, greeting.challenges); err != nil {
		return nil, err
	}
	scheme := "https"
	if greeting.insecure {
		scheme = "http"
	}
	l.log.DebugContext(ctx, "logged in", "source", l.name, "credential", c.name)
	return &session{Client: &http.Client{Transport: a, CheckRedirect: checkRedirect}, scheme: scheme, credential: c}, nil
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
		l.log.InfoContext(ctx, "the credential before was denied", "source", l.name, "denied", d.credential, "answered", s.credential.name, "error", withoutRequest(d.err))
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
