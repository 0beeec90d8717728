package registry_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

var right = has{"user", "right-password"}

// What happens with each credential of a chain, with passwords and with tokens.
func TestCredentialsAreTriedInOrder(t *testing.T) {
	image := randomImage(t, 1)
	bad, narrow := has{"user", "bad-password"}, right
	for name, c := range map[string]struct {
		quirks registrytest.Quirks
		chain  registry.Chain
		who    string // whose credential is answered; "" for none
	}{
		"the first":                  {registrytest.Quirks{}, registry.Chain{{"first", right}, {"second", bad}}, "first"},
		"the second":                 {registrytest.Quirks{}, registry.Chain{{"first", bad}, {"second", right}}, "second"},
		"bad, private":               {registrytest.Quirks{}, registry.Chain{{"first", bad}}, ""},
		"bad, public":                {registrytest.Quirks{Public: true}, registry.Chain{{"first", bad}}, "anonymous"},
		"narrow, public":             {registrytest.Quirks{Public: true, Narrow: true}, registry.Chain{{"first", narrow}}, "anonymous"},
		"bad, narrow, public":        {registrytest.Quirks{Public: true, Narrow: true}, registry.Chain{{"first", bad}, {"second", narrow}}, "anonymous"},
		"none, private":              {registrytest.Quirks{}, nil, ""},
		"none, public":               {registrytest.Quirks{Public: true}, nil, "anonymous"},
		"fails, then the second":     {registrytest.Quirks{}, registry.Chain{{"first", fails{errors.New("broken")}}, {"second", right}}, "second"},
		"bad, then fails, to public": {registrytest.Quirks{Public: true}, registry.Chain{{"first", bad}, {"second", fails{errors.New("broken")}}}, "anonymous"},
	} {
		for _, token := range []bool{false, true} {
			server := registrytest.New(t)
			ref := push(t, server, "team/image:tag", image)
			c.quirks.User, c.quirks.Password, c.quirks.Token = "user", "right-password", token
			server.SetQuirks(c.quirks)
			var log bytes.Buffer
			got, err := newClient(func(o *registry.Options) { o.Keychain, o.Logger = c.chain, logTo(&log) }).Image(t.Context(), registry.DefaultPlatform(), ref)
			if c.who == "" {
				require.ErrorIs(t, err, registry.ErrDenied, name)
				for _, k := range c.chain {
					assert.ErrorContains(t, err, k.Name, "%s: the error has what was tried", name)
				}
				assert.ErrorContains(t, err, "anonymous", name)
			} else {
				require.NoError(t, err, name)
				assert.Contains(t, log.String(), "msg=answered source="+server.Host()+"/team/image credential="+c.who, name)
				_, err = remote{Image: got, layer: layersOf(t, image)[0]}.read(t.Context(), 0, 10)
				require.NoError(t, err, name)
				assert.Equal(t, 1, strings.Count(log.String(), "msg=answered"), "%s: logged once", name)
			}
			assert.NotContains(t, log.String(), "password", name)
		}
	}
}

// A keychain that fails, with none behind it, is an error and no anonymous
// attempt: "denied" would hide the cause.
func TestFailingKeychain(t *testing.T) {
	server := registrytest.New(t)
	ref := push(t, server, "image:tag", randomImage(t, 1))
	broken := errors.New("the role cannot be assumed")
	for _, keychain := range []authn.Keychain{fails{broken}, registry.Chain{{"AWS", fails{broken}}, {"other", has{}}}} {
		_, err := newClient(func(o *registry.Options) { o.Keychain = keychain }).Image(t.Context(), registry.DefaultPlatform(), ref)
		require.ErrorIs(t, err, registry.ErrNoCredentials)
		require.ErrorIs(t, err, broken)
	}
	assert.Empty(t, server.Requests())
}

// A token server that refuses a credential once does not make the registry one
// without credentials for ever.
func TestDeniedLoginIsNotForEver(t *testing.T) {
	server := registrytest.New(t)
	ref := push(t, server, "team/image:tag", randomImage(t, 1))
	client := newClient(func(o *registry.Options) { o.Keychain = right })
	// A token is issued without a credential, but no request is served with it.
	server.SetQuirks(registrytest.Quirks{Token: true, Public: true, User: "user", Password: "another", Status: 403})
	_, err := client.Image(t.Context(), registry.DefaultPlatform(), ref)
	require.ErrorIs(t, err, registry.ErrDenied)

	server.ExpireTokens()
	server.SetQuirks(registrytest.Quirks{Token: true, User: "user", Password: "right-password"})
	_, err = client.Image(t.Context(), registry.DefaultPlatform(), ref)
	require.NoError(t, err)
}

// The error of a keychain is reported when all later credentials are denied: it is
// the one that was meant to work.
func TestFailingKeychainIsReportedWhenOthersAreDenied(t *testing.T) {
	for _, token := range []bool{false, true} {
		server := registrytest.New(t)
		ref := push(t, server, "team/image:tag", randomImage(t, 1))
		server.SetQuirks(registrytest.Quirks{User: "user", Password: "right-password", Token: token})
		broken := errors.New("the role cannot be assumed")
		var log bytes.Buffer
		_, err := newClient(func(o *registry.Options) {
			o.Keychain = registry.Chain{{"AWS", fails{broken}}, {"stale", has{"user", "stale-password"}}}
			o.Logger = logTo(&log)
		}).Image(t.Context(), registry.DefaultPlatform(), ref)
		require.ErrorIs(t, err, registry.ErrDenied)
		require.ErrorIs(t, err, broken)
		assert.ErrorContains(t, err, "AWS: the role cannot be assumed")
		assert.ErrorContains(t, err, "asked with: stale, then anonymous")
		assert.Contains(t, log.String(), "a keychain failed")
	}
}

// ends is a keychain whose passwords end: it keeps one until
// Refused is called with it.
type ends struct {
	mu      sync.Mutex
	number  int
	good    int
	refused int
}

func (e *ends) Resolve(authn.Resource) (authn.Authenticator, error) { return e, nil }

func (e *ends) Authorization() (*authn.AuthConfig, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return &authn.AuthConfig{Username: "user", Password: string(rune('a' + e.number))}, nil
}

func (e *ends) Refused(c authn.AuthConfig) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.Password == string(rune('a'+e.number)) {
		e.refused++
		e.number = e.good
	}
}

func (e *ends) admits(user, password string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return user == "user" && password == string(rune('a'+e.good))
}

// end makes the password that was good until now a bad one.
func (e *ends) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.good++
}

// A password that ends in the middle is asked for again, once for all ranges.
func TestPasswordEnds(t *testing.T) {
	for _, token := range []bool{false, true} {
		keychain := &ends{}
		r := resolvedWith(t, registrytest.Quirks{Admits: keychain.admits, Token: token}, func(o *registry.Options) { o.Keychain = registry.Chain{{"ends", keychain}} })
		for range 3 {
			keychain.end()
			r.server.ExpireTokens()
			var group sync.WaitGroup
			var failed atomic.Int64
			for range 16 {
				group.Go(func() {
					if _, err := r.read(t.Context(), 0, 10); err != nil {
						failed.Add(1)
					}
				})
			}
			group.Wait()
			assert.Zero(t, failed.Load())
		}
		assert.Equal(t, 3, keychain.refused)
	}
}

// A password that ended before the first login is asked for again too, wherever
// it is denied: by the registry or by its token server.
func TestPasswordEndsBeforeTheLogin(t *testing.T) {
	for _, token := range []bool{false, true} {
		keychain := &ends{}
		keychain.end()
		server := registrytest.New(t)
		ref := push(t, server, "team/image:tag", randomImage(t, 1))
		server.SetQuirks(registrytest.Quirks{Admits: keychain.admits, Token: token})
		var log bytes.Buffer
		_, err := newClient(func(o *registry.Options) {
			o.Keychain, o.Logger = registry.Chain{{"ends", keychain}, {"next", fails{errors.New("it is not asked")}}}, logTo(&log)
		}).Image(t.Context(), registry.DefaultPlatform(), ref)
		require.NoError(t, err, "token: %v", token)
		assert.Equal(t, 1, keychain.refused)
		assert.NotContains(t, log.String(), "a keychain failed")
		assert.Contains(t, log.String(), "credential=ends")
	}

	// A keychain that has another one each time is not asked for ever.
	keychain := &changes{}
	server := registrytest.New(t)
	ref := push(t, server, "team/image:tag", randomImage(t, 1))
	var asked atomic.Int64
	server.SetQuirks(registrytest.Quirks{Token: true, Admits: func(string, string) bool { return asked.Add(1) > 100 }})
	_, err := newClient(func(o *registry.Options) { o.Keychain = keychain }).Image(t.Context(), registry.DefaultPlatform(), ref)
	require.ErrorIs(t, err, registry.ErrDenied)
	assert.ErrorContains(t, err, "asked with: keychain, then anonymous")
	assert.Less(t, asked.Load(), int64(20))
}

// When the new password is refused too, that is the answer; the next request
// begins with the keychains again.
func TestPasswordEndsForGood(t *testing.T) {
	keychain := &ends{}
	r := resolved(t, func(o *registry.Options) { o.Keychain = registry.Chain{{"ends", keychain}} })
	r.server.SetQuirks(registrytest.Quirks{Admits: func(string, string) bool { return false }})
	asked := len(r.server.Requests())
	_, err := r.read(t.Context(), 0, r.layer.Size) // a range would be asked for once more as a whole
	require.ErrorIs(t, err, registry.ErrDenied)
	assert.ErrorContains(t, err, "asked with: ends, then anonymous")
	assert.Len(t, r.server.Requests(), asked+3, "again, in case that the keychain has another one")

	r.server.SetQuirks(registrytest.Quirks{Admits: keychain.admits})
	_, err = r.read(t.Context(), 0, 10)
	require.NoError(t, err)
}

// counted is a keychain that is to be asked again for a new password.
type counted struct{ asked atomic.Int64 }

func (c *counted) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: "user", Password: fmt.Sprint(c.asked.Add(1))}, nil
}

// A request that is denied late, for a password that has ended, uses the one that
// another request has got meanwhile.
func TestNewPasswordIsForAll(t *testing.T) {
	keychain := &counted{}
	r := resolved(t, func(o *registry.Options) { o.Keychain = keychain })
	late, release := make(chan struct{}), make(chan struct{})
	var old atomic.Int64
	r.server.SetQuirks(registrytest.Quirks{Admits: func(_, password string) bool {
		if password == "1" && old.Add(1) == 1 {
			close(late)
			<-release
		}
		return password != "1"
	}})
	done := make(chan error)
	go func() {
		_, err := r.read(t.Context(), 0, 10)
		done <- err
	}()
	<-late
	_, err := r.read(t.Context(), 0, 10)
	require.NoError(t, err)
	asked := keychain.asked.Load()
	close(release)
	require.NoError(t, <-done)
	assert.Equal(t, asked, keychain.asked.Load())
}

// changes is a keychain that has something else each time.
type changes struct{ given atomic.Int64 }

func (c *changes) Resolve(authn.Resource) (authn.Authenticator, error) { return c, nil }
func (c *changes) Refused(authn.AuthConfig)                            {}
func (c *changes) Authorization() (*authn.AuthConfig, error) {
	return &authn.AuthConfig{Username: "user", Password: fmt.Sprint(c.given.Add(1))}, nil
}

// A keychain that has something else each time is not asked for ever.
func TestRenewalsAreBounded(t *testing.T) {
	for _, token := range []bool{false, true} {
		keychain := &changes{}
		r := resolved(t, func(o *registry.Options) { o.Keychain = keychain })
		var asked atomic.Int64
		r.server.SetQuirks(registrytest.Quirks{Token: token, Admits: func(string, string) bool {
			return asked.Add(1) > 100 // which would be too late
		}})
		_, err := r.read(t.Context(), 0, r.layer.Size)
		require.ErrorIs(t, err, registry.ErrDenied)
		assert.Less(t, asked.Load(), int64(20))
	}
}

// Blob storage that refuses what the registry signed is not about the
// credential: no other one is tried, nor a request without one.
func TestRefusedSignatureIsNoDenial(t *testing.T) {
	r := resolvedWith(t, registrytest.Quirks{User: "user", Password: "right-password"}, func(o *registry.Options) { o.Keychain = right })
	var refused atomic.Int64
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refused.Add(1)
		w.WriteHeader(http.StatusForbidden)
	}))
	defer storage.Close()
	r.server.SetQuirks(registrytest.Quirks{User: "user", Password: "right-password", RedirectTo: storage.URL})
	before := len(r.server.Requests())
	_, err := r.read(t.Context(), 0, r.layer.Size)
	require.ErrorIs(t, err, registry.ErrUnreachable)
	assert.Equal(t, int64(2), refused.Load(), "another URL was signed, once")
	requests := r.server.Requests()[before:]
	assert.Len(t, requests, 2)
	for _, request := range requests {
		assert.NotEmpty(t, request.Header.Get("Authorization"))
	}
}

// A keychain that fails when a credential has to be renewed is not the
// registry's fault.
func TestRenewalFails(t *testing.T) {
	for temporary, broken := range map[bool]error{false: errors.New("no role"), true: throttled{}} {
		keychain := &renewing{}
		r := resolved(t, func(o *registry.Options) { o.Keychain = registry.Chain{{"renewing", keychain}} })
		r.server.SetQuirks(registrytest.Quirks{Admits: func(_, password string) bool { return password == "fresh" }})
		keychain.set(broken)
		_, err := r.read(t.Context(), 0, 10)
		require.ErrorIs(t, err, registry.ErrNoCredentials)
		require.ErrorIs(t, err, broken)
		var may interface{ Temporary() bool }
		require.ErrorAs(t, err, &may)
		assert.Equal(t, temporary, may.Temporary())
		keychain.set(nil)
		_, err = r.read(t.Context(), 0, 10)
		require.NoError(t, err)
	}
}

type throttled struct{}

func (throttled) Error() string   { return "throttled" }
func (throttled) Temporary() bool { return true }

// renewing is an authenticator that asks a server for the password, as that of a
// cloud does.
type renewing struct {
	mu  sync.Mutex
	err error
}

func (r *renewing) Resolve(authn.Resource) (authn.Authenticator, error) { return r, nil }

func (r *renewing) Authorization() (*authn.AuthConfig, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &authn.AuthConfig{Username: "user", Password: "fresh"}, r.err
}

func (r *renewing) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// Secret is called with each secret once, before it is sent, and with nothing else.
func TestSecretsAreReported(t *testing.T) {
	image := randomImage(t, 1)
	for _, token := range []bool{false, true} {
		server := registrytest.New(t)
		ref := push(t, server, "team/image:tag", image)
		var reported []string
		secret := func(s string) { reported = append(reported, s) }
		server.SetQuirks(registrytest.Quirks{Token: token, TokenUses: 1, Admits: func(user, password string) bool {
			if user != "" {
				assert.Contains(t, reported, password, "it was sent before")
			}
			return user == right.user && password == right.password
		}})
		_, err := newClient(func(o *registry.Options) { o.Keychain, o.Secret = right, secret }).Image(t.Context(), registry.DefaultPlatform(), ref)
		require.NoError(t, err)
		want := append([]string{right.password, base64.StdEncoding.EncodeToString([]byte(right.user + ":" + right.password))}, server.Tokens()...)
		assert.ElementsMatch(t, want, reported)

		reported = nil
		server.SetQuirks(registrytest.Quirks{Token: token, Public: true})
		_, err = newClient(func(o *registry.Options) { o.Secret = secret }).Image(t.Context(), registry.DefaultPlatform(), ref)
		require.NoError(t, err)
		assert.Empty(t, reported, "a token that is issued to anybody is none")
	}

	// With OAuth 2.0: an identity token, and what is given for it.
	var reported []string
	ref := front(t, "/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/token" {
			challenge(w, r)
			return
		}
		assert.Contains(t, reported, "TOP-SECRET-IDENTITY", "it was sent before")
		_, _ = io.WriteString(w, `{"access_token":"TOP-SECRET-ACCESS","refresh_token":"TOP-SECRET-REFRESH"}`)
	})
	_, err := newClient(func(o *registry.Options) {
		o.Keychain, o.Secret = identity{}, func(s string) { reported = append(reported, s) }
	}).Image(t.Context(), registry.DefaultPlatform(), ref)
	require.ErrorIs(t, err, registry.ErrDenied)
	assert.Equal(t, []string{"TOP-SECRET-IDENTITY", "TOP-SECRET-ACCESS", "TOP-SECRET-REFRESH"}, reported)
}
