package faults

import (
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/stretchr/testify/assert"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/tarballtest"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// password is a keychain with one credential for everything.
type password struct{}

func (password) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: "user", Password: "password"}, nil
}

func withToken(q registrytest.Quirks) func(own *registrytest.Server) {
	q.Token, q.User, q.Password = true, "user", "password"
	return func(own *registrytest.Server) { own.SetQuirks(q) }
}

// A token that ends is renewed, each time it does and no oftener.
func TestTokenIsRenewed(t *testing.T) {
	t.Parallel()
	o := options()
	o.Keychain = password{}
	r := resolved(t, threeLayers, 1, o, withToken(registrytest.Quirks{TokenUses: 2}))
	p := r.put(t, 1, nil)
	r.requireRight(t, p)
	assert.Equal(t, r.size, tarballtest.Once(p.Result))
	assert.Equal(t, 3, r.own.TokensIssued(), "for a manifest, a config and three layers")
}

// The ranges that a 401 hits side by side have one new token in common.
func TestTokenIsRenewedOnce(t *testing.T) {
	t.Parallel()
	o := options()
	o.Keychain = password{}
	r := resolved(t, threeLayers, 1, o, withToken(registrytest.Quirks{}))
	r.own.ExpireTokens()
	r.requireRight(t, r.put(t, 16, nil))
	assert.Equal(t, 2, r.own.TokensIssued(), "one for resolving, one for all ranges")
}

// In the middle of the layers.
func TestTokenEndsMidway(t *testing.T) {
	t.Parallel()
	o := options()
	o.Keychain = password{}
	r := resolved(t, threeLayers, 1, o, withToken(registrytest.Quirks{}))
	var once sync.Once
	p := r.put(t, 1, &cache.PutOptions{Progress: func(tarball.Progress) { once.Do(r.own.ExpireTokens) }})
	r.requireRight(t, p)
	assert.Equal(t, r.size, tarballtest.Once(p.Result))
	assert.Equal(t, 2, r.own.TokensIssued())
}
