package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/examples/internal/scripttest"
)

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// certificate writes a certificate for 127.0.0.1 and its key, and returns who trusts it.
func certificate(t *testing.T) (certificate, key string, trusting *x509.CertPool) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	own := s.TLS.Certificates[0]
	raw, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	require.NoError(t, err)
	trusting = x509.NewCertPool()
	trusting.AddCert(s.Certificate())
	return writeFile(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]}))),
		writeFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))), trusting
}

// With TLS, passwords and tokens: a layer is read over HTTP/2 too.
func TestAccess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	require.NoError(t, scripttest.Stock(filepath.Join(dir, "image_main.tar"), "registry.test/ci/image:v1", 1<<20, "a"))
	stocked, err := tarball.Open(filepath.Join(dir, "image_main.tar"))
	require.NoError(t, err)
	defer stocked.Close()
	cert, key, pool := certificate(t)
	p := run(t, "-dir", dir, "-tls-cert", cert, "-tls-key", key,
		"-password-file", writeFile(t, "passwords", "# comment\n\nuser:pass:word\r\nother:x\n"), "-token-file", writeFile(t, "tokens", "token-1\ntoken-2"))
	assert.Contains(t, p.url, "https://127.0.0.1:")
	for _, protocol := range []int{1, 2} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: protocol == 2}
		defer transport.CloseIdleConnections()
		client := &http.Client{Transport: transport}
		get := func(path string, set func(r *http.Request)) (int, int64) {
			r, err := http.NewRequest(http.MethodGet, p.url+path, nil)
			require.NoError(t, err)
			set(r)
			got, err := client.Do(r)
			require.NoError(t, err)
			defer got.Body.Close()
			assert.Equal(t, protocol, got.ProtoMajor)
			n, err := io.Copy(io.Discard, got.Body)
			require.NoError(t, err)
			return got.StatusCode, n
		}
		layer := "/v2/registry.test/ci/image/blobs/" + stocked.Image.Layers()[0].Digest.String()
		basic := func(user, password string) func(*http.Request) {
			return func(r *http.Request) { r.SetBasicAuth(user, password) }
		}
		header := func(value string) func(*http.Request) {
			return func(r *http.Request) { r.Header.Set("Authorization", value) }
		}
		for _, right := range []func(*http.Request){basic("user", "pass:word"), basic("other", "x"), header("Bearer token-2"), header("bearer token-1")} {
			status, n := get(layer, right)
			assert.Equal(t, http.StatusOK, status)
			assert.Equal(t, stocked.Image.Layers()[0].Size, n)
		}
		for _, wrong := range []func(*http.Request){func(*http.Request) {}, basic("user", "word"), basic("", ""), basic("# comment", ""), basic("token-1", "token-1"), header("Bearer "), header("Bearer token"), header("Bearer user:pass:word"), header("token-1")} {
			for _, path := range []string{layer, "/v2/", "/v2/_catalog", "/metrics"} {
				status, _ := get(path, wrong)
				assert.Equal(t, http.StatusUnauthorized, status)
			}
		}
		status, _ := get("/healthz", func(*http.Request) {})
		assert.Equal(t, http.StatusOK, status)
		status, _ = get("/metrics", header("Bearer token-1"))
		assert.Equal(t, http.StatusOK, status)
	}
	assert.NotContains(t, p.end(), "token-1")
}
