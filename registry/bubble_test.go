package registry_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
)

// pipes is a listener of connections that need no network, so that real clients and
// servers run by a test's clock.
type pipes struct {
	net.Listener
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// inBubble serves hosts within a synctest bubble, without TLS, and returns the options of
// a client that reaches them. The handlers may be servers that were started outside.
func inBubble(t *testing.T, hosts map[string]http.Handler) *registry.Options {
	t.Helper()
	t.Cleanup(func() { time.Sleep(time.Hour) }) // the last one: handlers that sleep end
	listeners := map[string]*pipes{}
	transport := registry.DefaultTransport()
	transport.Proxy = nil
	transport.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		l := listeners[host]
		if err != nil || l == nil {
			return nil, errors.New("no such host in this test")
		}
		client, server := net.Pipe()
		select {
		case l.conns <- server:
			return client, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	o := &registry.Options{Keychain: anonymous, Transport: transport, CertDirs: []string{}}
	for host, handler := range hosts {
		l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		listeners[host] = l
		server := &http.Server{Handler: handler}
		go func() { _ = server.Serve(l) }() // ends with ErrServerClosed
		t.Cleanup(func() { require.NoError(t, server.Close()) })
		o.PlainHTTP = append(o.PlainHTTP, host)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return o
}
