package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/dockercache/dockercache/internal/redact"
)

// bearer sends a token with each request to its registry and renews it when the
// registry answers 401. That of go-containerregistry renews it once for each of
// the requests that are under way: sixteen ranges, sixteen tokens.
type bearer struct {
	inner     http.RoundTripper
	repo      name.Repository
	challenge *transport.Challenge
	tell      func(secrets ...string)

	mu    sync.Mutex
	auth  authn.Authenticator
	token string
}

// newBearer returns a transport that has a token already.
func newBearer(ctx context.Context, inner http.RoundTripper, repo name.Repository, auth authn.Authenticator, challenge *transport.Challenge, tell func(...string)) (*bearer, error) {
	b := &bearer{inner: inner, repo: repo, auth: auth, challenge: challenge, tell: tell}
	// Whether the token server that is named may be asked at all.
	if _, err := transport.FromToken(repo.Registry, auth, inner, challenge, &transport.Token{}); err != nil {
		return nil, b.malformed(err)
	}
	_, err := b.other(ctx, "")
	return b, err
}

func (b *bearer) malformed(err error) error {
	return &Error{Op: "get a token for", Source: b.repo.Name(), Kind: ErrAnswer, Err: redact.Error(err)}
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
	got, err := transport.Exchange(context.WithValue(ctx, tokenKey{}, true), b.repo.Registry, b.auth, b.inner, []string{b.repo.Scope(transport.PullScope)}, b.challenge)
	switch {
	case isMalformedToken(err):
		return "", b.malformed(err)
	case err != nil:
		return "", err
	}
	token := cmp.Or(got.AccessToken, got.Token) // the first as OAuth 2.0 calls it
	if strings.ContainsFunc(token, func(r rune) bool { return r < '!' || r > '~' }) {
		return "", b.malformed(errors.New("the token has characters that no header may have"))
	}
	b.tell(token, got.RefreshToken)
	b.token = token
	if got.RefreshToken != "" {
		b.auth = authn.FromConfig(authn.AuthConfig{IdentityToken: got.RefreshToken})
	}
	return b.token, nil
}

// tokenKey marks the context of a request for a token.
type tokenKey struct{}

// isMalformedToken tells whether a token server answered, but with no token.
// go-containerregistry has no type for that.
func isMalformedToken(err error) bool {
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	var away *awayError
	return errors.As(err, &syntax) || errors.As(err, &mismatch) || errors.As(err, &away) ||
		err != nil && strings.Contains(err.Error(), "no token in bearer response")
}
