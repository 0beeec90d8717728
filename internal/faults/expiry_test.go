package faults

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/stretchr/testify/assert"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/tarballtest"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// ending is a keychain whose passwords end now and then, as a cloud's do.
type ending struct {
	mu         sync.Mutex
	good, kept int // numbers of passwords: the one that is good, the one that is given
	refused    int
}

func (e *ending) Resolve(authn.Resource) (authn.Authenticator, error) { return e, nil }

func (e *ending) Authorization() (*authn.AuthConfig, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return &authn.AuthConfig{Username: "user", Password: fmt.Sprint("password-", e.kept)}, nil
}

func (e *ending) Refused(c authn.AuthConfig) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.Password == fmt.Sprint("password-", e.kept) {
		e.kept = e.good
		e.refused++
	}
}

func (e *ending) admits(_, password string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return password == fmt.Sprint("password-", e.good)
}

func (e *ending) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.good++
}

// Everything that can end does so several times on the way: the password, the
// token that was given for it, the signed URLs. Not a byte comes twice.
func TestEverythingExpires(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		token       bool
		connections int
	}{
		"password":              {false, 1},
		"token":                 {true, 1},
		"password, many ranges": {false, 8},
		"token, many ranges":    {true, 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keychain := &ending{}
			o := options()
			o.Keychain = registry.Chain{{Name: "ending", Keychain: keychain}}
			var storage *registrytest.Storage
			q := registrytest.Quirks{Admits: keychain.admits, Token: c.token}
			r := resolved(t, threeLayers, 1, o, func(own *registrytest.Server) {
				storage = registrytest.NewStorage(t, own, 2)
				q.Storage = storage
				own.SetQuirks(q)
			})
			var mu sync.Mutex
			ended := 0
			p := r.put(t, c.connections, &cache.PutOptions{Progress: func(p tarball.Progress) {
				mu.Lock()
				defer mu.Unlock()
				if p.Done*4/r.size > int64(ended) && ended < 3 {
					ended++
					keychain.end()
					r.own.ExpireTokens()
				}
			}})
			r.requireRight(t, p)
			assert.Equal(t, r.size, tarballtest.Once(p.Result))
			assert.Equal(t, 3, ended)
			assert.Positive(t, storage.Expired(), "signed URLs")
			assert.Positive(t, keychain.refused)
			if c.connections > 1 {
				// A range of which another worker took the rest is cut off, so bytes
				// cannot be counted; but nothing begins again that had begun.
				for _, l := range r.layers {
					for from, answers := range starts(askedOf(t, l, storage.Requests())) {
						given := slices.DeleteFunc(answers, func(a asked) bool { return a.sent == 0 })
						assert.LessOrEqual(t, len(given), 1, "the range at %d", from)
					}
				}
				return
			}
			n := int64(0)
			for _, l := range r.layers {
				n += sent(askedOf(t, l, storage.Requests()))
			}
			assert.Equal(t, r.size, n, "each byte was sent once")
			assert.GreaterOrEqual(t, keychain.refused, 2, "passwords")
		})
	}
}
