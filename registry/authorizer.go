package registry

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/dockercache/dockercache/internal/httpclient"
)

// An authorizer answers the challenges of a repository's registry with one
// credential, and those of other registries that it redirects to without one. Each is
// answered where it is asked: a registry may need no credential at /v2/ and want a token
// for the repository. It is safe for concurrent use.
type authorizer struct {
	*sessions
	insecure   bool // the registry speaks plain HTTP
	credential credential

	mu    sync.Mutex
	hosts map[string]*access // by HOST or HOST:PORT
}

// access returns what one host is sent.
func (a *authorizer) access(host string, insecure bool) *access {
	a.mu.Lock()
	defer a.mu.Unlock()
	to := a.hosts[host]
	if to == nil {
		to = &access{sessions: a.sessions, host: host, insecure: insecure, auth: authn.Anonymous}
		if host == a.repo.RegistryStr() {
			if to.own = true; !a.credential.anonymous() {
				to.auth = a.credential
			}
		}
		a.hosts[host] = to
	}
	return to
}

// prepare gets what the registry asked for at /v2/. Where it asked for nothing it is
// sent a password, if there is one: it may be a registry that does not ask.
func (a *authorizer) prepare(ctx context.Context, offered []challenge) error {
	own := a.access(a.repo.RegistryStr(), a.insecure)
	if len(offered) == 0 {
		own.basic = own.auth != authn.Anonymous
		return nil
	}
	_, err := own.answer(ctx, offered, "", map[string]bool{})
	return err
}

func (a *authorizer) RoundTrip(req *http.Request) (*http.Response, error) {
	to := a.access(req.URL.Host, req.URL.Scheme == "http")
	sent, err := to.authorization(req.Context())
	if err != nil {
		return nil, err
	}
	asked := map[string]bool{} // which schemes this request was repeated with
	for {
		resp, err := a.send(req, sent)
		if err != nil || resp.StatusCode != http.StatusUnauthorized {
			return resp, err
		}
		offered := challengesOf(resp)
		if len(offered) == 0 {
			offered = to.last() // the registry does not repeat its earlier answer
		}
		next, err := to.answer(req.Context(), offered, sent, asked)
		switch {
		case err == nil && (next == "" || next == sent):
			return resp, nil // denied
		case err != nil && !to.own:
			a.log.InfoContext(req.Context(), "no token of a registry that was redirected to", "source", a.name, "to", to.host, "error", withoutRequest(err))
			return resp, nil
		}
		_ = resp.Body.Close()
		if err != nil {
			return nil, err
		}
		sent = next
	}
}

func (a *authorizer) send(req *http.Request, authorization string) (*http.Response, error) {
	req = req.Clone(req.Context()) // a RoundTripper must not change its request
	req.Header.Del("Authorization")
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	return a.transport.RoundTrip(req)
}

// An access is what one host is sent: a token, renewed when the host answers 401,
// once for all requests in flight; or a password, which the keychain is asked for
// with each request. It is safe for concurrent use.
type access struct {
	*sessions
	host     string
	own      bool // the registry itself; others are sent no credential
	insecure bool

	mu      sync.Mutex
	auth    authn.Authenticator
	basic   bool        // a password is sent, no token
	token   string      // empty: none yet
	offered []challenge // what the host offered last
}

// last returns what the host offered last.
func (t *access) last() []challenge {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.offered
}

// authorization returns the header to send; empty for none.
func (t *access) authorization(ctx context.Context) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.header(ctx)
}

func (t *access) header(ctx context.Context) (string, error) {
	switch {
	case t.token != "":
		return "Bearer " + t.token, nil
	case !t.basic:
		return "", nil
	}
	config, err := authn.Authorization(ctx, t.auth)
	switch {
	case err != nil:
		return "", err
	case config.RegistryToken != "":
		return "Bearer " + config.RegistryToken, nil
	case config.Username != "" && config.Password != "":
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(config.Username+":"+config.Password)), nil
	case config.Auth != "":
		return "Basic " + config.Auth, nil
	}
	return "", nil
}

// answer returns the header that answers a challenge to a request that was sent with
// another; that one again, or none, if there is nothing left to answer with. Each
// scheme is tried once for a request, in the order in which they are offered.
func (t *access) answer(ctx context.Context, offered []challenge, sent string, asked map[string]bool) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.offered = offered
	if now, err := t.header(ctx); err == nil && now != "" && now != sent && len(asked) == 0 {
		scheme, _, _ := strings.Cut(strings.ToLower(now), " ")
		asked[scheme] = true
		return now, nil // another request got it meanwhile, or the keychain has another
	}
	var failed error
	for _, c := range offered {
		if asked[c.scheme] {
			continue
		}
		asked[c.scheme] = true
		header, err := t.try(ctx, c)
		switch {
		case err != nil:
			failed = cmp.Or(failed, err)
		case header != "" && header != sent:
			return header, nil
		}
	}
	return "", failed
}

// try gets what one scheme wants.
func (t *access) try(ctx context.Context, c challenge) (string, error) {
	if c.scheme == "basic" {
		if t.auth == authn.Anonymous {
			return "", nil
		}
		t.token, t.basic = "", true
		return t.header(ctx)
	}
	token, err := t.newToken(ctx, c)
	if err != nil {
		return "", err
	}
	t.token, t.basic = token, false
	return t.header(ctx)
}

// newToken asks the token server that a challenge names.
func (t *access) newToken(ctx context.Context, c challenge) (string, error) {
	realm, err := t.realm(c)
	if err != nil {
		return "", t.malformed(err)
	}
	config, err := authn.Authorization(ctx, t.auth)
	if err != nil {
		return "", err
	}
	if config.RegistryToken != "" { // the keychain has the token itself
		return config.RegistryToken, nil
	}
	scope := t.repo.Scope(transport.PullScope)
	if !t.own && c.parameters["scope"] != "" {
		scope = c.parameters["scope"] // the repository may have another name there
	}
	got, err := transport.Exchange(context.WithValue(ctx, tokenKey{}, true), realm, t.auth, t.transport, []string{scope},
		&transport.Challenge{Scheme: c.scheme, Parameters: c.parameters, Insecure: t.insecure})
	switch {
	case isMalformedToken(err):
		return "", t.malformed(err)
	case err != nil:
		return "", err
	}
	token := cmp.Or(got.AccessToken, got.Token) // the first as OAuth 2.0 calls it
	t.secrets.Hide(token, got.RefreshToken)
	if strings.ContainsFunc(token, func(r rune) bool { return r < '!' || r > '~' }) {
		return "", t.malformed(errors.New("the token has characters that no header may have"))
	}
	if t.auth != authn.Anonymous { // otherwise the token is for all
		t.secrets.Add(token, got.RefreshToken)
		if got.RefreshToken != "" {
			t.auth = authn.FromConfig(authn.AuthConfig{IdentityToken: got.RefreshToken})
		}
	}
	return token, nil
}

// realm checks where a token server is. The result stands for its host:
// go-containerregistry would refuse one with an address as its host even to a
// registry that is in the same place. By its name it may be there too, which is
// checked when it is dialled.
func (t *access) realm(c challenge) (name.Registry, error) {
	u, err := url.Parse(c.parameters["realm"])
	switch {
	case err != nil:
		return name.Registry{}, fmt.Errorf("the realm is not a URL: %w", err)
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return name.Registry{}, errors.New("the realm is not an https URL")
	case u.Scheme == "http" && !t.insecure:
		return name.Registry{}, fmt.Errorf("the realm is on %s without TLS, which only a registry without TLS may ask for", u.Host)
	case u.Host != t.host && !t.allowLocal:
		if place := httpclient.PlaceOfHost(u.Hostname()); !t.origin.mayLeadTo(place) {
			return name.Registry{}, fmt.Errorf("the realm: %w", &ledError{t.host, u.Host, "", place})
		}
	}
	return name.NewRegistry(u.Host, name.Insecure)
}

func (t *access) malformed(err error) error {
	return &Error{Op: "get a token for", Source: t.repo.Name(), Kind: ErrInvalidAnswer, Err: t.secrets.Error(err)}
}

// isMalformedToken reports whether a token server answered without a token.
// go-containerregistry has no type for that.
func isMalformedToken(err error) bool {
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	var away *awayError
	return errors.As(err, &syntax) || errors.As(err, &mismatch) || errors.As(err, &away) ||
		err != nil && strings.Contains(err.Error(), "no token in bearer response")
}
