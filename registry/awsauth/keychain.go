package awsauth

import (
	"context"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-containerregistry/pkg/authn"
)

// A Keychain gives the credentials of ECR, as the package comment describes. It
// is safe for concurrent use.
type Keychain struct {
	settings *settings

	mu             sync.Mutex
	config         *aws.Config // nil until the first host of ECR
	authenticators map[host]*Authenticator
}

// NewKeychain returns a keychain. Nil options are the defaults. The error is an
// [*Error] of kind [ErrOptions]; nothing else is looked at before a host of ECR
// is resolved.
func NewKeychain(options *Options) (*Keychain, error) {
	s, err := newSettings(options)
	if err != nil {
		return nil, err
	}
	return &Keychain{settings: s, authenticators: map[host]*Authenticator{}}, nil
}

// Resolve is [Keychain.ResolveContext] without a limit in time.
func (k *Keychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), target)
}

// ResolveContext returns an [*Authenticator] for a registry of ECR, which has
// credentials by then, and [authn.Anonymous] for any other. The error is an
// [*Error] of any kind but [ErrOptions], or the cause of ctx's end.
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
func (k *Keychain) authenticator(h host) *Authenticator {
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
// kept.
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

var (
	_ authn.Keychain        = (*Keychain)(nil)
	_ authn.ContextKeychain = (*Keychain)(nil)
)
