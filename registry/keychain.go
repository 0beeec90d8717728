package registry

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/dockercache/dockercache/internal/redact"
)

// A Chain is an ordered list of keychains, and a keychain itself. As
// [Options.Keychain] it does more than authn.NewMultiKeychain: when a registry
// denies the credential of one, that of the next is tried, and at last none at
// all; and one that fails does not hide that a later one has what is needed.
type Chain []NamedKeychain

// A NamedKeychain is a keychain with a name that logs and errors may show.
type NamedKeychain struct {
	Name     string
	Keychain authn.Keychain
}

// DefaultChain returns the default of [Options.Keychain]: for ghcr.io the
// environment variables GITHUB_TOKEN and GH_TOKEN, as [GitHub] reads them; then
// Docker's config file with the credential helpers that it names, or podman's
// where Docker has none.
func DefaultChain() Chain {
	return Chain{
		{"GITHUB_TOKEN", GitHub(os.Getenv)},
		{"Docker's config file", authn.DefaultKeychain},
	}
}

// Resolve returns the first credential that a keychain of the chain has for the
// target. Where none has one, it is authn.Anonymous, or the error of the
// keychains that failed: nobody can tell what they would have had.
func (c Chain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	return c.ResolveContext(context.Background(), target)
}

// ResolveContext is [Chain.Resolve].
func (c Chain) ResolveContext(ctx context.Context, target authn.Resource) (authn.Authenticator, error) {
	found, err := c.find(ctx, target, 0)
	if !found.anonymous() {
		err = nil
	}
	return found.auth, err
}

// anonymousName is what logs and errors call requests without a credential.
const anonymousName = "anonymous"

// A credential is what a keychain has for a registry, or what goes without.
type credential struct {
	auth authn.Authenticator
	name string // of the keychain
	from int    // its place in the chain; len(chain) for none

	failed error // of the keychains before it, that nobody knows what they would have had

	tell func(secrets ...string) // is told what it has, before it is sent
}

func (c credential) anonymous() bool { return c.auth == authn.Anonymous }

// renewed tells the keychain that the registry refuses what it gave, and whether
// it now gives something else.
func (c credential) renewed(ctx context.Context, sent *authn.AuthConfig) bool {
	keeper, ok := c.auth.(interface{ Refused(authn.AuthConfig) })
	if !ok || sent == nil {
		return false
	}
	keeper.Refused(*sent)
	config, err := authn.Authorization(ctx, c.auth)
	return err != nil || *config != *sent // an error shows when it is asked again
}

// sentKey marks the context of a request with where to note what was sent with
// it: by the time that a registry refuses a password, the keychain may have
// given another one to others.
type sentKey struct{}

// Authorization and AuthorizationContext ask the keychain's authenticator, which
// may have to ask others in turn, and make its error one of this package.
func (c credential) Authorization() (*authn.AuthConfig, error) {
	return c.AuthorizationContext(context.Background())
}

func (c credential) AuthorizationContext(ctx context.Context) (*authn.AuthConfig, error) {
	config, err := authn.Authorization(ctx, c.auth)
	if err != nil && ctx.Err() == nil {
		err = &Error{Op: "get the credential of", Source: c.name, Kind: ErrCredentials, Err: redact.Error(err)}
	}
	if err == nil && c.tell != nil {
		c.tell(config.Password, config.Auth, config.IdentityToken, config.RegistryToken)
		if config.Password != "" {
			c.tell(base64.StdEncoding.EncodeToString([]byte(config.Username + ":" + config.Password)))
		}
	}
	if sent, ok := ctx.Value(sentKey{}).(**authn.AuthConfig); ok && err == nil {
		*sent = config
	}
	return config, err
}

// find is [Chain.Resolve] from a place in the chain on. The error is that of the
// keychains that failed, whether or not one after them has a credential.
func (c Chain) find(ctx context.Context, target authn.Resource, from int) (credential, error) {
	var failed []error
	for i := from; i < len(c); i++ {
		auth, err := authn.Resolve(ctx, c[i].Keychain, target)
		switch {
		case err != nil:
			failed = append(failed, fmt.Errorf("%s: %w", c[i].Name, err))
		case auth != authn.Anonymous:
			failed := errors.Join(failed...)
			return credential{auth: auth, name: c[i].Name, from: i, failed: failed}, failed
		}
	}
	err := errors.Join(failed...)
	return credential{auth: authn.Anonymous, name: anonymousName, from: len(c), failed: err}, err
}

// GitHub is a keychain for ghcr.io alone: the token in the variable
// GITHUB_TOKEN, or else GH_TOKEN, with the name in GITHUB_ACTOR. getenv is
// usually [os.Getenv].
//
// The token needs the permission "packages: read", and the package must be
// linked to the repository that the token is for.
func GitHub(getenv func(name string) string) authn.Keychain { return gitHub(getenv) }

type gitHub func(name string) string

func (getenv gitHub) Resolve(target authn.Resource) (authn.Authenticator, error) {
	token := cmp.Or(getenv("GITHUB_TOKEN"), getenv("GH_TOKEN"))
	if token == "" || target.RegistryStr() != "ghcr.io" {
		return authn.Anonymous, nil
	}
	// ghcr.io takes any name, but an empty one would not be sent at all.
	return &authn.Basic{Username: cmp.Or(getenv("GITHUB_ACTOR"), "github"), Password: token}, nil
}
