package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/dockercache/dockercache/internal/redact"
	"github.com/dockercache/dockercache/internal/wait"
)

// A session is what a login gives: a client that has what the registry wants,
// and the scheme that the registry answered to.
type session struct {
	*http.Client
	scheme     string
	credential credential
	worked     atomic.Bool // the registry has answered to it
}

// open logs in with the first credential, from a place in the chain on, that
// the token server does not deny. Who comes while that is under way waits for
// it, no longer than its own context allows.
func (r *repository) open(ctx context.Context, from int) (*session, error) {
	// The login is everybody's, so it does not end with the first one's context.
	login := r.logins.DoChan(fmt.Sprint(from), func() (any, error) {
		// With retries, even for a range of a blob: a failure is remembered.
		ctx := context.WithValue(context.WithoutCancel(ctx), onceKey{}, nil)
		s, err := r.tryCredentials(ctx, from)
		if err != nil && from == 0 {
			r.health.fail(err)
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

func (r *repository) tryCredentials(ctx context.Context, from int) (*session, error) {
	var denied denials
	for {
		// Before the registry is asked: its answer would be for nothing.
		c, err := r.client.chain.find(ctx, r.repo, from)
		switch {
		case err != nil && c.anonymous() && len(denied) == 0 && from == 0:
			return nil, &Error{Op: "find credentials for", Source: r.repo.RegistryStr(), Kind: ErrCredentials, Err: redact.Error(err)}
		case err != nil: // another one has a credential, or was denied
			r.client.options.Logger.Warn("a keychain failed", "source", r.name, "error", redact.Text(err.Error()))
		}
		challenge, err := r.ping(ctx)
		if err != nil {
			return nil, err
		}
		s, err := r.login(ctx, challenge, c)
		if err == nil {
			return s, nil
		}
		if denied = append(denied, denial{c, err}); !isDenied(err) || c.anonymous() {
			return nil, denied
		}
		r.client.options.Logger.Info("credential denied", "source", r.name, "credential", c.name, "error", redact.Text(err.Error()))
		from = c.from + 1
	}
}

// ping finds out what the registry wants, once.
func (r *repository) ping(ctx context.Context) (*transport.Challenge, error) {
	if c := r.challenge.Load(); c != nil {
		return c, nil
	}
	c, err := transport.Ping(ctx, r.repo.Registry, r.client.transport)
	if err == nil {
		r.challenge.Store(c)
	}
	return c, err
}

// login returns a session that satisfies the registry for pulls. A Bearer token
// is renewed when the registry says 401; a Basic credential is asked of its
// keychain for each request.
func (r *repository) login(ctx context.Context, challenge *transport.Challenge, c credential) (*session, error) {
	var rt http.RoundTripper
	var err error
	c.tell = r.client.secrets.Add
	auth, tell := authn.Authenticator(c), c.tell
	if c.anonymous() {
		auth, tell = authn.Anonymous, func(...string) {} // what everybody gets is no secret
	}
	if strings.EqualFold(challenge.Scheme, "bearer") {
		rt, err = newBearer(ctx, r.client.transport, r.repo, auth, challenge, tell)
	} else {
		rt, err = transport.FromToken(r.repo.Registry, auth, r.client.transport, challenge, nil)
	}
	if err != nil {
		return nil, err
	}
	scheme := "https"
	if challenge.Insecure {
		scheme = "http"
	}
	r.client.options.Logger.Debug("logged in", "source", r.name, "credential", c.name)
	return &session{Client: &http.Client{Transport: rt, CheckRedirect: checkRedirect}, scheme: scheme, credential: c}, nil
}

// instead returns what to try when the registry denies a request of s: what
// another request found meanwhile; what the keychain gives in place of what was
// sent, or the keychains anew, for credentials end; then the next one of the
// chain, and at last no credential. It returns nil when nothing is left. tried
// has s and all before it.
func (r *repository) instead(ctx context.Context, s *session, sent *authn.AuthConfig, tried []*session) (*session, error) {
	if current := r.session.Load(); current != nil && current.worked.Load() && !slices.Contains(tried, current) {
		return current, nil
	}
	switch {
	case s.credential.anonymous():
		return nil, nil
	case len(tried) <= mostRenewals && s.credential.renewed(ctx, sent):
		return s, nil // which asks the keychain again
	case s == tried[0] && s.worked.Load():
		return r.open(ctx, 0)
	}
	return r.open(ctx, s.credential.from+1)
}

// mostRenewals is how often one request may be tried with something new from
// the same keychain. Once is the rule; a keychain that gives something else
// each time must not go on for ever.
const mostRenewals = 3

// denials are what the registry said to each of the credentials, in order.
type denials []denial

type denial struct {
	credential credential
	err        error
}

func (d denials) Error() string { return d[len(d)-1].err.Error() }

// Unwrap returns the first denial: where all are denied, it is the first
// credential that was meant to work. Other trouble comes last, and ends it.
func (d denials) Unwrap() error {
	if last := d[len(d)-1].err; !isDenied(last) {
		return last
	}
	return d[0].err
}

// asked tells which credentials were tried, for the error's text.
func (d denials) asked() string {
	names := make([]string, len(d))
	for i := range d {
		names[i] = d[i].credential.name
	}
	return strings.Join(slices.Compact(names), ", then ")
}

// failed returns the error of the keychains that were passed over, nil if none
// was: what they would have had may be what the registry wants.
func (d denials) failed() error {
	for i := range d {
		if err := d[i].credential.failed; err != nil {
			return err
		}
	}
	return nil
}

// isDenied tells whether an error is the registry's or token server's refusal of
// a credential; blob storage refuses its own signature.
func isDenied(err error) bool {
	var status *statusError
	if errors.As(err, &status) && status.redirected {
		return false
	}
	var answer *transport.Error
	return errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden)
}
