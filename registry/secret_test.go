package registry_test

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

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
	got, err := client.Resolve(t.Context(), registry.DefaultPlatform(), ref)
	require.NoError(t, err)
	assert.Equal(t, digestOf(t, image), got.Digest())

	after, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, config, after)
	entries, err := os.ReadDir(home)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing was written beside it")
}

// A config file that cannot be read is not "denied" by anybody.
func TestMalformedDockerConfig(t *testing.T) {
	server := registrytest.New(t)
	ref := push(t, server, "image:tag", randomImage(t, 1))
	home := t.TempDir()
	t.Setenv("DOCKER_CONFIG", home)
	require.NoError(t, os.WriteFile(filepath.Join(home, "config.json"), []byte("{"), 0o600))
	_, err := newClient(func(o *registry.Options) { o.Keychain = nil }).Resolve(t.Context(), registry.DefaultPlatform(), ref)
	require.ErrorIs(t, err, registry.ErrCredentials)
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

	_, err := newClient(func(o *registry.Options) { o.Keychain = nil }).Resolve(t.Context(), registry.DefaultPlatform(), ref)
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
	got, err := client.Resolve(t.Context(), registry.DefaultPlatform(), ref)
	require.NoError(t, err)
	r := remote{Image: got, layer: layersOf(t, image)[0]}

	var texts []string
	_, err = r.read(t.Context(), 0, 10)
	require.ErrorIs(t, err, registry.ErrDenied)
	texts = append(texts, err.Error())
	require.NotEmpty(t, seen)
	for _, h := range seen {
		assert.Empty(t, h.Get("Authorization"))
		assert.Empty(t, h.Get("Cookie"))
		assert.Equal(t, "bytes=0-9", h.Get("Range"), "the range goes along")
	}

	storage.Close() // now net/http's own error holds the whole URL
	_, err = r.read(t.Context(), 0, 10)
	require.ErrorIs(t, err, registry.ErrUnreachable)
	texts = append(texts, err.Error())

	quirks.RedirectTo = "http://storage.example.com" // plain HTTP to elsewhere
	server.SetQuirks(quirks)
	_, err = r.read(t.Context(), 0, 10)
	require.ErrorIs(t, err, registry.ErrUnreachable)
	assert.ErrorContains(t, err, "plain HTTP is not allowed")
	texts = append(texts, err.Error(), log.String())

	quirks.RedirectTo = "http://" + server.Host() + "/v2/image/blobs/" + r.layer.Digest.String() + "?" // to itself, for ever
	server.SetQuirks(quirks)
	_, err = r.read(t.Context(), 0, 10)
	require.ErrorContains(t, err, "redirects")
	texts = append(texts, err.Error(), log.String())

	for _, text := range texts {
		assert.NotContains(t, text, registrytest.Signature)
		assert.NotContains(t, text, "TOP-SECRET")
		assert.NotContains(t, text, "secret-password")
		assert.NotContains(t, text, base64.StdEncoding.EncodeToString([]byte("user:secret-password")))
	}
}
