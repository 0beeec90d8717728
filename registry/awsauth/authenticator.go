package awsauth

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// publicPause is how long ECR Public is used without credentials after AWS gave
// none: a machine without any looks for an instance's role for seconds, each time.
const publicPause = 10 * time.Minute

// An Authenticator has the user and password of one registry of ECR. It gives
// them out as long as they are good and renews them before they end, so it may
// be asked for every request. It is safe for concurrent use.
type Authenticator struct {
	keychain *Keychain
	host     host
	lease    lease[authn.AuthConfig]

	mu        sync.Mutex
	leftAlone time.Time // ECR Public is used without credentials until then
}

func newAuthenticator(k *Keychain, h host) *Authenticator {
	a := &Authenticator{keychain: k, host: h}
	a.lease.now, a.lease.limit = k.settings.now, roleLimit+2*ecrTimeout // the ECR request may be made twice
	a.lease.renew = func(ctx context.Context) (authn.AuthConfig, time.Time, error) {
		cfg, err := k.load(ctx)
		if err != nil {
			return authn.AuthConfig{}, time.Time{}, err
		}
		return k.settings.logIn(ctx, cfg, h)
	}
	a.lease.kept = func(why error, until time.Time) {
		k.settings.Logger.Warn("password is not renewed, going on with the one there is", "of", h.String(), "until", until, "error", why)
	}
	return a
}

// Authorization is [Authenticator.AuthorizationContext] without a limit in time.
func (a *Authenticator) Authorization() (*authn.AuthConfig, error) {
	return a.AuthorizationContext(context.Background())
}

// AuthorizationContext returns the user and password, which are asked for when
// there are none that are good. All who ask meanwhile share one request. The
// error is an [*Error] of any kind but [ErrOptions], or the cause of ctx's end.
// For ECR Public a failure of AWS is logged, and what is returned is empty.
func (a *Authenticator) AuthorizationContext(ctx context.Context) (*authn.AuthConfig, error) {
	if a.isLeftAlone() {
		return &authn.AuthConfig{}, nil
	}
	got, err := a.lease.get(ctx)
	if err == nil {
		return &got, nil
	}
	if !a.host.public || ctx.Err() != nil {
		return nil, err
	}
	a.leaveAlone(err)
	return &authn.AuthConfig{}, nil
}

// Refused says that the registry did not accept what was given out: it is
// forgotten, if it is what would be given out again, and asked for anew the next
// time. Whoever says so for each refusal should try again once, not for ever.
func (a *Authenticator) Refused(config authn.AuthConfig) {
	a.lease.forget(func(kept authn.AuthConfig) bool {
		return kept.Username == config.Username && kept.Password == config.Password
	})
}

func (a *Authenticator) isLeftAlone() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.keychain.settings.now().Before(a.leftAlone)
}

func (a *Authenticator) leaveAlone(why error) {
	a.mu.Lock()
	a.leftAlone = a.keychain.settings.now().Add(publicPause)
	a.mu.Unlock()
	log := a.keychain.settings.Logger.Warn
	if errors.Is(why, ErrNoCredentials) {
		log = a.keychain.settings.Logger.Info // as on most machines that pull public images
	}
	log("pulling from ECR Public without credentials of AWS", "error", why)
}

var (
	_ authn.Authenticator        = (*Authenticator)(nil)
	_ authn.ContextAuthenticator = (*Authenticator)(nil)
)
