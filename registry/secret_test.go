package registry_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// Docker's config file is where credentials come from, and it is only read.
func TestCredentialsFromDockerConfig(t *testing.T) {
	server := registrytest.New(t)
	image := randomImage(t, 1)
	ref := push(t, server, "image:tag", image)
	server.SetQuirks(registrytest.Quirks{User: "user", Password: "secret-password"})

	home := t.TempDir()
	t.Setenv("DOCKER_CONFIG", home)
	t.Setenv("HOME", home)
	file := filepath.Join(home, "config.json")
	auth := base64.StdEncoding.EncodeToString([]byte("user:secret-password"))
	config := []byte(`{"auths":{"` + server.Host() + `":{"auth":"` + auth + `"}}}`)
	require.NoError(t, os.WriteFile(file, config, 0o400))

	client := newClient(func(o *registry.Options) { o.Keychain = nil })
	got, err := client.Image(t.Context(), registry.DefaultPlatform(), ref)
	require.NoError(t, err)
	assert.Equal(t, digestOf(t, image), got.Digest())

	after, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, config, after)
	entries, err := os.ReadDir(home)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing was written beside it")
}

// A config file that cannot be read is not the same as "denied".
func TestMalformedDockerConfig(t *testing.T) {
	server := registrytest.New(t)
	ref := push(t, server, "image:tag", randomImage(t, 1))
	home := t.TempDir()
	t.Setenv("DOCKER_CONFIG", home)
	require.NoError(t, os.WriteFile(filepath.Join(home, "config.json"), []byte("{"), 0o600))
	_, err := newClient(func(o *registry.Options) { o.Keychain = nil }).Image(t.Context(), registry.DefaultPlatform(), ref)
	require.ErrorIs(t, err, registry.ErrNoCredentials)
	assert.NotErrorIs(t, err, registry.ErrUnreachable)
	assert.Empty(t, server.Requests())
}

// A credential helper that config.json names is run.
func TestCredentialsFromAHelper(t *testing.T) {
	server := registrytest.New(t)
	ref := push(t, server, "image:tag", randomImage(t, 1))
	server.SetQuirks(registrytest.Quirks{User: "user", Password: "from-the-helper"})

	home := t.TempDir()
	t.Setenv("DOCKER_CONFIG", home)
	t.Setenv("PATH", home+":"+os.Getenv("PATH"))
	helper := "#!/bin/sh\necho '{\"ServerURL\":\"x\",\"Username\":\"user\",\"Secret\":\"from-the-helper\"}'\n"
	require.NoError(t, os.WriteFile(filepath.Join(home, "docker-credential-test"), []byte(helper), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(home, "config.json"), []byte(`{"credHelpers":{"`+server.Host()+`":"test"}}`), 0o600))

	_, err := newClient(func(o *registry.Options) { o.Keychain = nil }).Image(t.Context(), registry.DefaultPlatform(), ref)
	require.NoError(t, err)
}

type fixed struct{ user, password string }

func (f fixed) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: f.user, Password: f.password}, nil
}

// No credential goes with a redirect to another origin, and neither a password
// nor a URL's signature is in any error or log line.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	var seen []http.Header
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Clone())
		w.WriteHeader(http.StatusForbidden)
	}))
	defer storage.Close()

	var log bytes.Buffer
	server := registrytest.New(t)
	image := randomImage(t, 1)
	ref := push(t, server, "image:tag", image)
	quirks := registrytest.Quirks{User: "user", Password: "secret-password", RedirectTo: storage.URL}
	server.SetQuirks(quirks)
	client := newClient(func(o *registry.Options) {
		o.Keychain = fixed{"user", "secret-password"}
		o.Logger = logTo(&log)
	})
	got, err := client.Image(t.Context(), registry.DefaultPlatform(), ref)
	require.NoError(t, err)
	r := remote{Image: got, layer: layersOf(t, image)[0]}

	var texts []string
	_, err = r.read(t.Context(), 0, 10)
	require.ErrorIs(t, err, registry.ErrUnreachable, "an expired signature: asked again, the registry makes a new one")
	texts = append(texts, allTexts(err)...)
	require.NotEmpty(t, seen)
	assert.Equal(t, "bytes=0-9", seen[0].Get("Range"), "the range goes along")
	for _, h := range seen {
		assert.Empty(t, h.Get("Authorization"))
		assert.Empty(t, h.Get("Cookie"))
	}

	storage.Close() // now net/http's own error holds the whole URL
	_, err = r.read(t.Context(), 0, 10)
	require.ErrorIs(t, err, registry.ErrUnreachable)
	texts = append(texts, allTexts(err)...)

	quirks.RedirectTo = "http://storage.example.com" // plain HTTP to elsewhere
	server.SetQuirks(quirks)
	_, err = r.read(t.Context(), 0, 10)
	require.ErrorIs(t, err, registry.ErrUnreachable)
	assert.ErrorContains(t, err, "plain HTTP to storage.example.com is not allowed")
	texts = append(texts, append(allTexts(err), log.String())...)

	quirks.RedirectTo = "http://" + server.Host() + "/v2/image/blobs/" + r.layer.Digest.String() + "?" // to itself, for ever
	server.SetQuirks(quirks)
	_, err = r.read(t.Context(), 0, 10)
	require.ErrorContains(t, err, "redirects")
	texts = append(texts, append(allTexts(err), log.String())...)

	for _, text := range texts {
		assert.NotContains(t, text, registrytest.Signature)
		assert.NotContains(t, text, "TOP-SECRET")
		assert.NotContains(t, text, "secret-password")
		assert.NotContains(t, text, base64.StdEncoding.EncodeToString([]byte("user:secret-password")))
	}
}

// allTexts returns the texts of an error and of all that it wraps: a program may
// look for a cause and print that.
func allTexts(err error) []string {
	texts := []string{err.Error()}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			texts = append(texts, allTexts(inner)...)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			texts = append(texts, allTexts(inner)...)
		}
	}
	return texts
}

// front is a registry in which one path is answered by a function.
func front(t *testing.T, path string, answer http.HandlerFunc) (ref string) {
	t.Helper()
	server := registrytest.New(t)
	push(t, server, "image:tag", randomImage(t, 1))
	f := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, path) {
			answer(w, r)
			return
		}
		proxyTo(server, w, r)
	}))
	t.Cleanup(f.Close)
	return strings.TrimPrefix(f.URL, "http://") + "/image:tag"
}

// challenge makes a registry ask for a Bearer token from its own /token.
func challenge(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="test"`)
	w.WriteHeader(http.StatusUnauthorized)
}

type identity struct{}

func (identity) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig{IdentityToken: "TOP-SECRET-IDENTITY"}), nil
}

// What a token server must not make the client do: send a credential on, or print
// one. It is no registry's answer, so nothing is asked twice.
func TestTokenServers(t *testing.T) {
	var stolen []string
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		stolen = append(stolen, string(body)+r.URL.RawQuery+r.Header.Get("Authorization"))
		_, _ = io.WriteString(w, `{"token":"of-the-thief"}`)
	}))
	defer thief.Close()
	elsewhere := strings.TrimPrefix(thief.URL, "http://")
	answers := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
	}
	for name, c := range map[string]struct {
		token http.HandlerFunc
		says  string
	}{
		"redirects": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.URL, http.StatusTemporaryRedirect)
		}, " redirects the request for a token, which contains a credential, to " + elsewhere},
		"gives no token":              {answers(`{"refresh_token":"TOP-SECRET-REFRESH"}`), "no token in (not shown)"},
		"gives half of the JSON":      {answers(`{"token":"TOP-SECRET-TOKEN`), "unexpected end of JSON input"},
		"gives a number":              {answers(`{"token":1}`), "cannot unmarshal number"},
		"returns a token of 2 lines":  {answers(`{"token":"TOP-SECRET\r\nX-Evil: 1"}`), "characters that no header may have"},
		"returns a token with spaces": {answers(`{"access_token":"TOP SECRET"}`), "characters that no header may have"},
	} {
		for _, keychain := range []authn.Keychain{identity{}, fixed{"user", "TOP-SECRET-PASSWORD"}} {
			asked := 0
			ref := front(t, "/", func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/token" {
					asked++
					c.token(w, r)
					return
				}
				challenge(w, r)
			})
			_, err := newClient(func(o *registry.Options) { o.Keychain = keychain }).Image(t.Context(), registry.DefaultPlatform(), ref)
			require.ErrorIs(t, err, registry.ErrInvalidAnswer, name)
			assert.ErrorContains(t, err, c.says, name)
			assert.NotContains(t, strings.Join(allTexts(err), "\n"), "TOP-SECRET", name)
			assert.Equal(t, 1, asked, name)
		}
	}
	assert.Empty(t, stolen)
}

// A token server may redirect within its own host.
func TestTokenServerMoves(t *testing.T) {
	server := registrytest.New(t)
	ref := push(t, server, "image:tag", randomImage(t, 1))
	f := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/old":
			http.Redirect(w, r, "/token", http.StatusTemporaryRedirect)
		case "/v2/":
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/old",service="test"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			proxyTo(server, w, r)
		}
	}))
	defer f.Close()
	server.SetQuirks(registrytest.Quirks{Token: true, User: right.user, Password: right.password})
	ref = strings.Replace(ref, server.Host(), strings.TrimPrefix(f.URL, "http://"), 1)
	_, err := newClient(func(o *registry.Options) { o.Keychain = right }).Image(t.Context(), registry.DefaultPlatform(), ref)
	require.NoError(t, err)
}

// A token server that a credential must not be sent to is not asked: services of
// this network and of a cloud, and any without TLS.
func TestForbiddenTokenServers(t *testing.T) {
	for _, realm := range []string{"http://auth.example.com/token", "https://169.254.169.254/token", "https://127.0.0.1/token", "https://10.1.2.3/token", "ftp://auth.example.com/", ""} {
		var asked []string
		client := newClient(func(o *registry.Options) {
			o.Keychain = fixed{"user", "TOP-SECRET-PASSWORD"}
			o.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				asked = append(asked, r.URL.Host)
				assert.Empty(t, r.Header.Get("Authorization"))
				header := http.Header{"Www-Authenticate": {`Bearer realm="` + realm + `",service="test"`}}
				return &http.Response{StatusCode: http.StatusUnauthorized, Header: header, Body: http.NoBody, Request: r}, nil
			})
		})
		_, err := client.Image(t.Context(), registry.DefaultPlatform(), "registry.example.com/image:tag")
		require.ErrorIs(t, err, registry.ErrInvalidAnswer, realm)
		assert.ErrorContains(t, err, "realm", realm)
		assert.ErrorContains(t, err, "registry.example.com/image", realm)
		assert.Equal(t, []string{"registry.example.com"}, asked, realm)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A token is for its registry, not for where that redirects to.
func TestTokenIsNotSentOn(t *testing.T) {
	r := resolvedWith(t, registrytest.Quirks{Token: true, User: "user", Password: "right-password"}, func(o *registry.Options) { o.Keychain = right })
	storage := registrytest.NewStorage(t, r.server, 0)
	r.server.SetQuirks(registrytest.Quirks{Token: true, User: "user", Password: "right-password", Storage: storage})
	_, err := r.read(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Len(t, storage.Requests(), 1)
	assert.Empty(t, storage.Requests()[0].Header.Get("Authorization"))
}

// A helper that fails may have printed a secret before.
func TestFailingHelperIsNotQuoted(t *testing.T) {
	home := t.TempDir()
	t.Setenv("DOCKER_CONFIG", home)
	t.Setenv("PATH", home+":"+os.Getenv("PATH"))
	helper := "#!/bin/sh\necho 'partial {\"Secret\":\"TOP-SECRET-HELPER\"}'\nexit 1\n"
	require.NoError(t, os.WriteFile(filepath.Join(home, "docker-credential-test"), []byte(helper), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(home, "config.json"), []byte(`{"credsStore":"test"}`), 0o600))
	_, err := newClient(func(o *registry.Options) { o.Keychain = nil }).Image(t.Context(), registry.DefaultPlatform(), "127.0.0.1:1/image:tag")
	require.ErrorIs(t, err, registry.ErrNoCredentials)
	assert.ErrorContains(t, err, "127.0.0.1:1/image:tag", "the error names the image")
	assert.NotContains(t, strings.Join(allTexts(err), "\n"), "TOP-SECRET")
}

// Foreign text never makes a line of its own, nor a signature visible.
func TestForeignTextIsCleaned(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"malformed redirect": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://host/%zz?"+registrytest.Signature)
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
		"redirect with a newline": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://127.0.0.1:1/%0A::error::forged%0A?"+registrytest.Signature)
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
		"index": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			_, _ = io.WriteString(w, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:`+strings.Repeat("0", 64)+`","platform":{"os":"linux\n::error::forged","architecture":"`+strings.Repeat("x", 1<<20)+`"}}]}`)
		},
	} {
		_, err := newClient(nil).Image(t.Context(), registry.DefaultPlatform(), front(t, "/v2/image/manifests/", answer))
		require.Error(t, err, name)
		assert.NotContains(t, err.Error(), "\n", name)
		assert.NotContains(t, strings.Join(allTexts(err), "\n"), "TOP-SECRET", name)
		assert.Less(t, len(err.Error()), 1100, name)
	}
}

// A registry whose certificate is not trusted is not one without TLS.
func TestCertificateErrorsAreSaid(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "https://")
	_, err := newClient(nil).Image(t.Context(), registry.DefaultPlatform(), host+"/image:tag")
	require.ErrorContains(t, err, "certificate")
}

// All of 127.0.0.0/8 is loopback.
func TestOtherLoopbackAddresses(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.2:0")
	require.NoError(t, err)
	server := registrytest.New(t)
	push(t, server, "image:tag", randomImage(t, 1))
	f := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { proxyTo(server, w, r) })}}
	f.Start()
	defer f.Close()
	_, err = newClient(nil).Image(t.Context(), registry.DefaultPlatform(), listener.Addr().String()+"/image:tag")
	require.NoError(t, err)
}

// Not only blobs: a manifest that stalls must not delay the next source.
func TestStalledManifest(t *testing.T) {
	image := randomImage(t, 1)
	own := registrytest.New(t)
	ownRef := push(t, own, "own/image:tag", image)
	for _, status := range []int{http.StatusOK, http.StatusServiceUnavailable} {
		stalling := front(t, "/v2/image/manifests/", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "{")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		got, err := newClient(func(o *registry.Options) { o.StallTimeout = 300 * time.Millisecond }).Image(t.Context(), registry.DefaultPlatform(), stalling, ownRef)
		require.NoError(t, err)
		assert.Equal(t, ownRef, got.Source())
	}
}
