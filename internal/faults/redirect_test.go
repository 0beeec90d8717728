package faults

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/tarballtest"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// Blobs on another origin: the range goes there, no credential does, and an
// expired signature is asked for again at the registry.
func TestRedirect(t *testing.T) {
	for name, quirks := range map[string]registrytest.Quirks{
		"anonymous": {},
		"password":  {User: "user", Password: "password"},
		"token":     {User: "user", Password: "password", Token: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options()
			if quirks.User != "" {
				o.Keychain = password{}
			}
			var storage *registrytest.Storage
			r := resolved(t, threeLayers, 1, o, func(own *registrytest.Server) {
				storage = registrytest.NewStorage(t, own, 2)
				quirks.Storage = storage
				own.SetQuirks(quirks)
			})
			p := r.put(t, 1, nil)
			r.requireRight(t, p)
			assert.Equal(t, r.size, tarballtest.Once(p.Result))

			assert.Equal(t, 1, storage.Expired(), "three layers, and a signature is good for two")
			inRegistry, inStorage := allAsked(t, r.layers, r.own.Requests()), allAsked(t, r.layers, storage.Requests())
			for _, l := range r.layers {
				assert.Len(t, inStorage[l.Digest], len(inRegistry[l.Digest]), "each time the registry was asked for the way")
				assert.Equal(t, l.Size, sent(inStorage[l.Digest]))
			}
			for _, req := range storage.Requests() {
				assert.Empty(t, req.Header.Get("Authorization"))
				assert.Empty(t, req.Header.Get("Cookie"))
			}
		})
	}
}

// Many at a time, with bodies that are cut as well.
func TestRedirectSideBySide(t *testing.T) {
	t.Parallel()
	o := options()
	o.Keychain = password{}
	var storage *registrytest.Storage
	r := resolved(t, threeLayers, 1, o, func(own *registrytest.Server) {
		storage = registrytest.NewStorage(t, own, 8)
		own.SetQuirks(registrytest.Quirks{User: "user", Password: "password", Token: true, Storage: storage, CutBodyAfter: 3 * mib})
	})
	p := r.put(t, 8, nil)
	r.requireRight(t, p)
	assert.Equal(t, r.size, tarballtest.Once(p.Result))
	assert.Positive(t, storage.Expired())
	for _, req := range storage.Requests() {
		assert.Empty(t, req.Header.Get("Authorization"))
	}
}

// A storage that redirects further does not hand its own signature on: net/http
// puts the URL before, query and all, into Referer.
func TestSignatureStaysWhereItBelongs(t *testing.T) {
	t.Parallel()
	var seen []http.Header
	last := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Clone())
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(last.Close)
	first := httptest.NewServer(http.RedirectHandler(last.URL, http.StatusTemporaryRedirect))
	t.Cleanup(first.Close)
	r := resolved(t, oneRange, 1, options(), nil)
	r.own.SetQuirks(registrytest.Quirks{RedirectTo: first.URL})
	p := r.put(t, 1, nil)
	require.Error(t, p.err)
	require.NotEmpty(t, seen)
	for _, h := range seen {
		for name, values := range h {
			assert.NotContains(t, values[0], registrytest.Signature, name)
		}
	}
}
