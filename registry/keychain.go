package registry

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/dockercache/dockercache/internal/redact"
)

// A Refuser is an authn.Authenticator that is called when the registry or its
// token server denies the credential that it returned: it can then drop what it
// has cached. It is asked for the credential again next; when that one is another
// one it is tried, up to three times for one request. Refused is called by
// several goroutines at once, possibly with the same credential.
type Refuser interface {
	Refused(authn.AuthConfig)
}

// A Chain is an ordered list of keychains, and a keychain itself. As
// [Options.Keychain] it does more than authn.NewMultiKeychain: when a registry
// denies the credential of one keychain, that of the next is tried, and last
// none at all; and one that fails does not hide the credential of a later one. It
// is safe for concurrent use if its keychains are.
type Chain []NamedKeychain

// A NamedKeychain is a keychain with a name that logs and errors may show. A nil
// Keychain has no credentials.
type NamedKeychain struct {
	Name     string
	Keychain authn.Keychain
}

// DefaultChain returns the default of [Options.Keychain]: [GitHub], then Docker's
// config file, then podman's files, with the credential helpers that they name.
//
// Docker's is config.json in DOCKER_CONFIG or ~/.docker; the content of
// DOCKER_AUTH_CONFIG comes before it. Podman's is REGISTRY_AUTH_FILE, or else
// containers/auth.json in XDG_RUNTIME_DIR (/run/containers/UID on Linux) and in
// XDG_CONFIG_HOME (~/.config), and ~/.docker/config.json. Of several keys
// HOST/NAMESPACE the longest that is a prefix of the repository counts, then that of
// the host; all names of Docker Hub are one.
//
// A helper has a minute to answer; then it is killed, with all that it started. What
// is wrong with an entry of another registry, and a store (credsStore) that does not
// run, unless the file lists the registry, is logged as a warning. A file that is both
// Docker's and podman's is Docker's alone.
func DefaultChain() Chain {
	return Chain{
		{"GITHUB_TOKEN", GitHub()},
		{"Docker's config file", dockerFile()},
		{"podman's auth file", podmanFiles()},
	}
}

// Resolve is [Chain.ResolveContext] without a context.
func (c Chain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	return c.ResolveContext(context.Background(), target)
}

// ResolveContext returns the first credential that a keychain of the chain has
// for the target. Where none has one, it returns authn.Anonymous, or the error of
// the keychains that failed: they may have had one.
func (c Chain) ResolveContext(ctx context.Context, target authn.Resource) (authn.Authenticator, error) {
	found, err := c.find(ctx, target, 0)
	if !found.anonymous() {
		err = nil
	}
	return found.auth, err
}

// find is [Chain.ResolveContext] from a place in the chain on. The error is that
// of the keychains that failed, whether or not a later one has a credential.
func (c Chain) find(ctx context.Context, target authn.Resource, from int) (credential, error) {
	var failed []error
	for i := from; i < len(c); i++ {
		if c[i].Keychain == nil {
			continue
		}
		auth, err := authn.Resolve(ctx, c[i].Keychain, target)
		switch {
		case err != nil:
			failed = append(failed, fmt.Errorf("%s: %w", c[i].Name, err))
		case auth != nil && auth != authn.Anonymous:
			failed := errors.Join(failed...)
			return credential{auth: auth, name: c[i].Name, from: i, failed: failed}, failed
		}
	}
	err := errors.Join(failed...)
	return credential{auth: authn.Anonymous, name: "anonymous", from: len(c), failed: err}, err
}

// A credential is what a keychain has for a registry, or none.
type credential struct {
	auth authn.Authenticator
	name string // of the keychain; logs and errors show it
	from int    // its place in the chain; len(chain) for none

	failed  error           // errors of keychains earlier in the chain
	secrets *redact.Secrets // where its secrets are added before they are sent
}

func (c credential) anonymous() bool { return c.auth == authn.Anonymous }

// renewed calls the keychain's [Refuser] with what the registry denied, and
// reports whether the keychain now returns something else.
func (c credential) renewed(ctx context.Context, sent *authn.AuthConfig) bool {
	refuser, ok := c.auth.(Refuser)
	if !ok || sent == nil {
		return false
	}
	refuser.Refused(*sent)
	config, err := authn.Authorization(ctx, c.auth)
	return err != nil || config == nil || *config != *sent // compared as they came; an error is returned when it is asked again
}

// sentKey is the key of a context's *authn.AuthConfig, where the credential that
// a request was sent with is stored: by the time that a registry denies a
// password, the keychain may have returned another one to other requests.
type sentKey struct{}

// Authorization is [credential.AuthorizationContext] without a context.
func (c credential) Authorization() (*authn.AuthConfig, error) {
	return c.AuthorizationContext(context.Background())
}

// AuthorizationContext asks the keychain's authenticator, which may have to ask a
// server in turn, and makes its error one of this package.
func (c credential) AuthorizationContext(ctx context.Context) (*authn.AuthConfig, error) {
	config, err := authn.Authorization(ctx, c.auth)
	if config == nil && err == nil {
		err = errors.New("it returned no credential and no error")
	}
	if err != nil {
		if ctx.Err() == nil {
			err = &Error{Op: "get the credential of", Source: c.name, Kind: ErrNoCredentials, Err: c.secrets.Error(err)}
		}
		return config, err
	}
	if sent, ok := ctx.Value(sentKey{}).(**authn.AuthConfig); ok {
		*sent = config
	}
	clean := trimmed(*config)
	c.secrets.AddLogin(clean.Username, clean.Password)
	c.secrets.Add(clean.Auth, clean.IdentityToken, clean.RegistryToken)
	if decoded, err := base64.StdEncoding.DecodeString(clean.Auth); err == nil {
		_, password, _ := strings.Cut(string(decoded), ":")
		c.secrets.Add(password)
	}
	return &clean, nil
}

// GitHub returns a keychain for ghcr.io alone: the token in the environment
// variable GITHUB_TOKEN, or else GH_TOKEN, with the name in GITHUB_ACTOR. They are
// read each time that a credential is asked for.
//
// The token needs the permission "packages: read", and the package must be
// linked to the repository that the token is for.
func GitHub() authn.Keychain { return gitHub{} }

type gitHub struct{}

func (gitHub) Resolve(target authn.Resource) (authn.Authenticator, error) {
	token := cmp.Or(strings.TrimSpace(os.Getenv("GITHUB_TOKEN")), strings.TrimSpace(os.Getenv("GH_TOKEN")))
	if token == "" || target.RegistryStr() != "ghcr.io" {
		return authn.Anonymous, nil
	}
	// ghcr.io takes any name, but an empty one would not be sent at all.
	return &authn.Basic{Username: cmp.Or(strings.TrimSpace(os.Getenv("GITHUB_ACTOR")), "github"), Password: token}, nil
}
