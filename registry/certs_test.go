package registry_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/testtool"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// An authority signs certificates, of which the system knows nothing.
type authority struct {
	t           *testing.T
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, certificate: &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "private CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}}
	a.key, _, a.certificate = a.sign(a.certificate)
	return a
}

func (a *authority) sign(template *x509.Certificate) (*ecdsa.PrivateKey, []byte, *x509.Certificate) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, signer)
	require.NoError(a.t, err)
	c, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return key, der, c
}

// issue returns a certificate and its key in PEM, for 127.0.0.1 or a client.
func (a *authority) issue() (certificate, key []byte) {
	k, der, _ := a.sign(&x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{{127, 0, 0, 1}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	require.NoError(a.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

// serve serves a handler with TLS, and with clients wants a certificate of them.
func (a *authority) serve(h http.Handler, clients bool) (host string) {
	certificate, key := a.issue()
	pair, err := tls.X509KeyPair(certificate, key)
	require.NoError(a.t, err)
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	if clients {
		s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		s.TLS.ClientCAs.AddCert(a.certificate)
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	a.t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "https://")
}

func write(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o700))
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
}

// CAs and the client's certificates are read where Docker and podman have them, and
// those of another registry are not used.
func TestCertificates(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	certificate, key := ca.issue()
	server := registrytest.New(t)
	ref := push(t, server, "image:tag", randomImage(t, 1))
	plain, mutual := ca.serve(server, false), ca.serve(server, true)
	broken := map[string][]byte{"broken.crt": []byte("x"), "lonely.cert": certificate, "readme.txt": []byte("x")}
	client := map[string][]byte{"ca.crt": ca.pem(), "client.cert": certificate, "client.key": key}
	for name, c := range map[string]struct {
		host  string
		dir   string // below the directory of all certificates
		files map[string][]byte
		cas   []*x509.Certificate
		fails bool
	}{
		"nothing":                   {host: plain, dir: plain, fails: true},
		"ca.crt":                    {host: plain, dir: plain, files: map[string][]byte{"ca.crt": ca.pem()}},
		"any name, several in one":  {host: plain, dir: plain, files: map[string][]byte{"x.crt": append(other.pem(), ca.pem()...), "y.crt": other.pem()}},
		"beside broken ones":        {host: plain, dir: plain, files: map[string][]byte{"ca.crt": ca.pem(), "a.crt": []byte("x"), "z.cert": []byte("x")}},
		"of another registry":       {host: plain, dir: mutual, files: map[string][]byte{"ca.crt": ca.pem()}, fails: true},
		"another CA":                {host: plain, dir: plain, files: map[string][]byte{"ca.crt": other.pem()}, fails: true},
		"broken alone":              {host: plain, dir: plain, files: broken, fails: true},
		"option":                    {host: plain, dir: "x", cas: []*x509.Certificate{other.certificate, ca.certificate}},
		"another in the option":     {host: plain, dir: "x", cas: []*x509.Certificate{other.certificate}, fails: true},
		"client":                    {host: mutual, dir: mutual, files: client},
		"client, CA by the option":  {host: mutual, dir: mutual, files: map[string][]byte{"client.cert": certificate, "client.key": key}, cas: []*x509.Certificate{ca.certificate}},
		"client without a key":      {host: mutual, dir: mutual, files: map[string][]byte{"ca.crt": ca.pem(), "client.cert": certificate}, fails: true},
		"no certificate of clients": {host: mutual, dir: mutual, files: map[string][]byte{"ca.crt": ca.pem()}, fails: true},
	} {
		for _, transport := range []http.RoundTripper{nil, &http.Transport{}} {
			dir := t.TempDir()
			write(t, filepath.Join(dir, c.dir), c.files)
			var log bytes.Buffer
			client := newClient(func(o *registry.Options) {
				o.CertDirs, o.CAs, o.Logger, o.Transport = []string{filepath.Join(dir, "missing"), dir}, c.cas, logTo(&log), transport
			})
			_, err := client.Image(t.Context(), registry.DefaultPlatform(), strings.Replace(ref, server.Host(), c.host, 1))
			if c.fails {
				require.ErrorIs(t, err, registry.ErrCertificate, name)
				require.NotErrorIs(t, err, registry.ErrUnreachable, name)
			} else {
				require.NoError(t, err, name)
			}
			unusable := bytes.Count([]byte(name), []byte("broken"))*2 + bytes.Count([]byte(name), []byte("without"))
			assert.Equal(t, unusable, strings.Count(log.String(), "a registry's certificate is not used"), name)
		}
	}
}

// A CA of a registry counts for where it leads, a client's certificate does not.
func TestCertificatesOfARedirect(t *testing.T) {
	ca := newAuthority(t)
	certificate, key := ca.issue()
	for _, mutual := range []bool{false, true} {
		server := registrytest.New(t)
		ref := push(t, server, "image:tag", randomImage(t, 1))
		storage := ca.serve(server, mutual)
		host := ca.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://"+storage+r.URL.Path, http.StatusTemporaryRedirect)
		}), true)
		dir := t.TempDir()
		write(t, filepath.Join(dir, host), map[string][]byte{"ca.crt": ca.pem(), "client.cert": certificate, "client.key": key})
		client := newClient(func(o *registry.Options) { o.CertDirs = []string{dir} })
		_, err := client.Image(t.Context(), registry.DefaultPlatform(), strings.Replace(ref, server.Host(), host, 1))
		if mutual {
			require.ErrorIs(t, err, registry.ErrCertificate)
		} else {
			require.NoError(t, err)
		}
	}
}

// Docker's and podman's places.
func TestDefaultCertDirs(t *testing.T) {
	ca := newAuthority(t)
	server := registrytest.New(t)
	ref := push(t, server, "image:tag", randomImage(t, 1))
	host := ca.serve(server, false)
	for _, place := range []string{".config/containers/certs.d", ".config/docker/certs.d", ".docker/certs.d"} {
		home := t.TempDir()
		t.Setenv("HOME", home)
		t.Setenv("XDG_CONFIG_HOME", "")
		client := func(o *registry.Options) { o.CertDirs = nil }
		_, err := newClient(client).Image(t.Context(), registry.DefaultPlatform(), strings.Replace(ref, server.Host(), host, 1))
		require.ErrorIs(t, err, registry.ErrCertificate)
		write(t, filepath.Join(home, place, host), map[string][]byte{"ca.crt": ca.pem()})
		_, err = newClient(client).Image(t.Context(), registry.DefaultPlatform(), strings.Replace(ref, server.Host(), host, 1))
		require.NoError(t, err, place)
	}
}

func TestReadCAs(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t)
	_, key := ca.issue()
	write(t, dir, map[string][]byte{"two": append(append(ca.pem(), key...), ca.pem()...), "key": key, "bad": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})})
	found, err := registry.ReadCAs(filepath.Join(dir, "two"))
	require.NoError(t, err)
	assert.Len(t, found, 2)
	for name, says := range map[string]string{"key": "no certificate in PEM", "bad": "x509", "missing": "no such file"} {
		_, err := registry.ReadCAs(filepath.Join(dir, name))
		require.ErrorContains(t, err, says)
		require.ErrorContains(t, err, filepath.Join(dir, name))
	}
}

// bcryptOfPassword is the form of "password" that docker-registry takes.
const bcryptOfPassword = "$2a$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu"

// With Debian's docker-registry: TLS by a private CA, and a login in podman's file
// while Docker's config file is empty.
func TestRealRegistry(t *testing.T) {
	program := testtool.Need(t, "docker-registry")
	ca := newAuthority(t)
	certificate, key := ca.issue()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	host := l.Addr().String()
	require.NoError(t, l.Close())
	write(t, dir, map[string][]byte{"tls.crt": certificate, "tls.key": key,
		"htpasswd":   []byte("user:" + bcryptOfPassword + "\n"),
		"config.yml": []byte("version: 0.1\nstorage: {filesystem: {rootdirectory: " + dir + "/data}}\nhttp: {addr: \"" + host + "\", tls: {certificate: " + dir + "/tls.crt, key: " + dir + "/tls.key}}\nauth: {htpasswd: {realm: x, path: " + dir + "/htpasswd}}\n")})
	cmd := exec.Command(program, "serve", filepath.Join(dir, "config.yml"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	client := newClient(func(o *registry.Options) {
		o.Keychain, o.CAs, o.RetryWait = nil, []*x509.Certificate{ca.certificate}, 100*time.Millisecond
	})
	authFiles(t, map[string]string{"docker": "{}", "XDG_RUNTIME_DIR": auths(host, "user")})
	_, err = client.Image(t.Context(), registry.DefaultPlatform(), host+"/image:tag")
	require.ErrorIs(t, err, registry.ErrNotFound, "it has let us in")

	authFiles(t, map[string]string{"docker": "{}", "XDG_RUNTIME_DIR": auths(host, "other")})
	_, err = newClient(func(o *registry.Options) { o.Keychain, o.CAs = nil, []*x509.Certificate{ca.certificate} }).Image(t.Context(), registry.DefaultPlatform(), host+"/image:tag")
	require.ErrorIs(t, err, registry.ErrDenied)
	_, err = newClient(nil).Image(t.Context(), registry.DefaultPlatform(), host+"/image:tag")
	require.ErrorIs(t, err, registry.ErrCertificate)
}
