// Package fakenet gives servers in a test the names of real ones, with TLS, so
// that a program is tested with the references and registries of production.
package fakenet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A Net is a proxy for HTTPS that leads connections to names to handlers in
// this process, behind certificates of its own authority. Any other name is
// refused: nothing leaves the machine.
type Net struct {
	proxy       *httptest.Server
	certificate tls.Certificate
	authority   string // file
	servers     http.Server
	connections chan net.Conn
	closed      chan struct{}

	mu       sync.Mutex
	handlers map[string]http.Handler // by host; nil once it is killed
	open     map[string][]net.Conn   // by host, those that were closed too
	refused  []string
}

// Start starts a net for the hosts, each HOST without a port. dir is where the
// certificate of its authority is written. It ends with Close.
func Start(dir string, hosts map[string]http.Handler) (*Net, error) {
	n := &Net{handlers: hosts, open: map[string][]net.Conn{}, connections: make(chan net.Conn), closed: make(chan struct{}), authority: filepath.Join(dir, "authority.pem")}
	var names []string
	for host := range hosts {
		names = append(names, host)
	}
	if err := n.certify(names); err != nil {
		return nil, err
	}
	n.servers.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.handler(r.Host).ServeHTTP(w, r) })
	n.servers.TLSConfig = &tls.Config{Certificates: []tls.Certificate{n.certificate}, MinVersion: tls.VersionTLS12}
	go func() { _ = n.servers.ServeTLS(n, "", "") }() // ends with Close
	n.proxy = httptest.NewServer(http.HandlerFunc(n.connect))
	return n, nil
}

// Env returns what a program's environment needs, as NAME=VALUE.
func (n *Net) Env() []string {
	return []string{"HTTPS_PROXY=" + n.proxy.URL, "NO_PROXY=127.0.0.1", "SSL_CERT_FILE=" + n.authority}
}

// Refused returns the hosts that were asked for and are not there.
func (n *Net) Refused() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.refused...)
}

// Kill ends a host and every connection to it, as a machine ends that loses its
// power.
func (n *Net) Kill(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handlers[host] = nil
	for _, c := range n.open[host] {
		_ = c.Close()
	}
}

func (n *Net) handler(host string) http.Handler {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.handlers[host]
}

// connect hands a connection over to the servers.
func (n *Net) connect(w http.ResponseWriter, r *http.Request) {
	host, port, _ := net.SplitHostPort(r.Host)
	if r.Method != http.MethodConnect || port != "443" || n.handler(host) == nil {
		n.mu.Lock()
		if _, killed := n.handlers[host]; !killed {
			n.refused = append(n.refused, r.Host)
		}
		n.mu.Unlock()
		http.Error(w, "no such host here", http.StatusBadGateway)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if _, err := conn.Write([]byte("HTTP/1.1 200 OK\r\n\r\n")); err != nil {
		_ = conn.Close()
		return
	}
	n.mu.Lock()
	n.open[host] = append(n.open[host], conn)
	if n.handlers[host] == nil {
		_ = conn.Close() // it was killed meanwhile
	}
	n.mu.Unlock()
	select {
	case n.connections <- conn:
	case <-n.closed:
		_ = conn.Close()
	}
}

// Accept makes it the listener of its servers, with Close and Addr.
func (n *Net) Accept() (net.Conn, error) {
	select {
	case c := <-n.connections:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the proxy, the servers and every connection.
func (n *Net) Close() error {
	n.mu.Lock()
	select {
	case <-n.closed:
		n.mu.Unlock()
		return nil
	default:
	}
	close(n.closed)
	n.mu.Unlock()
	n.proxy.Close()
	return n.servers.Close()
}

// Addr is not that of any listener of the system.
func (n *Net) Addr() net.Addr { return &net.TCPAddr{} }

// certify makes one certificate for all names, which is its own authority.
func (n *Net) certify(names []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fakenet"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	n.certificate = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return os.WriteFile(n.authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
}
