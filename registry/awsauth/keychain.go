package awsauth

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-containerregistry/pkg/authn"
)

// A Keychain has the credentials of ECR, as the package comment describes. It is
// safe for concurrent use.
type Keychain struct {
	settings *settings

	mu             sync.Mutex
	config         *aws.Config // nil until the first host of ECR
	authenticators map[host]*authenticator
}

// NewKeychain returns a keychain. Nil options are the defaults. The error is an
// [*Error] of kind [ErrInvalidOptions]; nothing else is looked at before a host of
// ECR is resolved.
func NewKeychain(options *Options) (*Keychain, error) {
	s, err := newSettings(options)
	if err != nil {
		return nil, err
	}
	return &Keychain{settings: s, authenticators: map[host]*authenticator{}}, nil
}

// Resolve is [Keychain.ResolveContext] without a context.
func (k *Keychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), target)
}

// ResolveContext returns an authenticator for a registry of ECR, which has
// credentials by then, and [authn.Anonymous] for any other.
//
// The authenticator is safe for concurrent use. It caches the user and password as
// long as they are good and renews them before they end, so it may be asked for
// each request. A method Refused(authn.AuthConfig) drops a password that the
// registry denied, so that the next call asks for another.
//
// The errors of both are an [*Error] of any kind but [ErrInvalidOptions]. When ctx
// has ended, they wrap its error and its cause.
func (k *Keychain) ResolveContext(ctx context.Context, target authn.Resource) (authn.Authenticator, error) {
	h, ok := parseHost(target.RegistryStr())
	if !ok {
		return authn.Anonymous, nil
	}
	a := k.authenticator(h)
	got, err := a.AuthorizationContext(ctx)
	switch {
	case err != nil:
		return nil, err
	case *got == authn.AuthConfig{}: // ECR Public, and AWS failed
		return authn.Anonymous, nil
	}
	return a, nil
}

// authenticator returns the one for a registry, so that its token is asked for
// once.
func (k *Keychain) authenticator(h host) *authenticator {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := k.authenticators[h]
	if a == nil {
		a = newAuthenticator(k, h)
		k.authenticators[h] = a
	}
	return a
}

// load returns the configuration, which is loaded on first use. An error is not
// cached.
func (k *Keychain) load(ctx context.Context) (aws.Config, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.config == nil {
		cfg, err := k.settings.load(ctx)
		if err != nil {
			return aws.Config{}, err
		}
		k.config = &cfg
	}
	return *k.config, nil
}

// publicPause is how long ECR Public is used without credentials after AWS had
// none: without any, the search for an instance's role takes seconds each time.
const publicPause = 10 * time.Minute

// An authenticator has the user and password of one registry of ECR. It is safe
// for concurrent use.
type authenticator struct {
	settings *settings
	host     host
	login    cached[authn.AuthConfig]

	mu          sync.Mutex
	pausedUntil time.Time // ECR Public is used without credentials until then
}

func newAuthenticator(k *Keychain, h host) *authenticator {
	a := &authenticator{settings: k.settings, host: h}
	a.login.now, a.login.limit = k.settings.now, roleLimit+2*ecrTimeout // the ECR request may be made twice
	a.login.renew = func(ctx context.Context) (authn.AuthConfig, time.Time, error) {
		cfg, err := k.load(ctx)
		if err != nil {
			return authn.AuthConfig{}, time.Time{}, err
		}
		return k.settings.logIn(ctx, cfg, h)
	}
	a.login.kept = func(ctx context.Context, why error, until time.Time) {
		k.settings.Logger.WarnContext(ctx, "the password is not renewed, the present one is still good", "of", h.String(), "until", until, "error", why)
	}
	return a
}

// Authorization is [authenticator.AuthorizationContext] without a context.
func (a *authenticator) Authorization() (*authn.AuthConfig, error) {
	return a.AuthorizationContext(context.Background())
}

// AuthorizationContext returns the user and password. Callers share one request
// for them. For ECR Public a failure of AWS is logged, and the result is empty.
func (a *authenticator) AuthorizationContext(ctx context.Context) (*authn.AuthConfig, error) {
	if a.isPaused() {
		return &authn.AuthConfig{}, nil
	}
	got, err := a.login.get(ctx)
	if err == nil {
		return &got, nil
	}
	if !a.host.public || ctx.Err() != nil {
		return nil, err
	}
	a.pause(ctx, err)
	return &authn.AuthConfig{}, nil
}

// Refused drops a password that the registry denied, unless there is another one
// already.
func (a *authenticator) Refused(config authn.AuthConfig) {
	a.login.forget(func(kept authn.AuthConfig) bool {
		return kept.Username == config.Username && kept.Password == config.Password
	})
}

func (a *authenticator) isPaused() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.settings.now().Before(a.pausedUntil)
}

func (a *authenticator) pause(ctx context.Context, why error) {
	a.mu.Lock()
	a.pausedUntil = a.settings.now().Add(publicPause)
	a.mu.Unlock()
	log := a.settings.Logger.WarnContext
	if errors.Is(why, ErrNoCredentials) {
		log = a.settings.Logger.InfoContext // as on most machines that pull public images
	}
	log(ctx, "pulling from ECR Public without credentials of AWS", "error", why)
}

var (
	_ authn.ContextKeychain      = (*Keychain)(nil)
	_ authn.ContextAuthenticator = (*authenticator)(nil)
)
