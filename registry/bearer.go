package registry

import (
	"context"
	"net/http"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// bearer sends a token with each request to its registry and renews it when the
// registry answers 401. That of go-containerregistry renews it once for each of
// the requests that are under way: sixteen ranges, sixteen tokens.
type bearer struct {
	inner     http.RoundTripper
	repo      name.Repository
	challenge *transport.Challenge

	mu    sync.Mutex
	auth  authn.Authenticator
	token string
}

// newBearer returns a transport that has a token already.
func newBearer(ctx context.Context, inner http.RoundTripper, repo name.Repository, auth authn.Authenticator, challenge *transport.Challenge) (*bearer, error) {
	b := &bearer{inner: inner, repo: repo, auth: auth, challenge: challenge}
	_, err := b.other(ctx, "")
	return b, err
}

func (b *bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != b.repo.RegistryStr() {
		return b.inner.RoundTrip(req) // where the registry redirected to
	}
	b.mu.Lock()
	token := b.token
	b.mu.Unlock()
	resp, err := b.send(req, token)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	_ = resp.Body.Close()
	if token, err = b.other(req.Context(), token); err != nil {
		return nil, err
	}
	return b.send(req, token)
}

func (b *bearer) send(req *http.Request, token string) (*http.Response, error) {
	req = req.Clone(req.Context()) // a RoundTripper must not change what it is given
	req.Header.Set("Authorization", "Bearer "+token)
	return b.inner.RoundTrip(req)
}

// other returns a token other than the one that is no longer good: a new one,
// unless another request got that meanwhile.
func (b *bearer) other(ctx context.Context, bad string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.token != bad {
		return b.token, nil
	}
	config, err := authn.Authorization(ctx, b.auth)
	if err != nil {
		return "", err
	}
	if config.RegistryToken != "" { // the keychain gives the token itself
		b.token = config.RegistryToken
		return b.token, nil
	}
	got, err := transport.Exchange(ctx, b.repo.Registry, b.auth, b.inner, []string{b.repo.Scope(transport.PullScope)}, b.challenge)
	if err != nil {
		return "", err
	}
	b.token = got.Token
	if got.AccessToken != "" { // as OAuth 2.0 calls it
		b.token = got.AccessToken
	}
	if got.RefreshToken != "" {
		b.auth = authn.FromConfig(authn.AuthConfig{IdentityToken: got.RefreshToken})
	}
	return b.token, nil
}
