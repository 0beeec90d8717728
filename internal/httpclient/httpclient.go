// Package httpclient has what all of the project's own HTTP clients need: a
// transport, and which addresses are this machine's.
package httpclient

import (
	"context"
	"net"
	"net/http"
	"syscall"
	"time"
)

// NewTransport returns a transport that uses the proxy that the environment
// names and limits connecting to 10 s: with retries, a host that swallows packets
// holds a program up for a minute, where net/http's 30 s would make it minutes. It
// connects to no address that a check in the request's context refuses, see
// [WithAddressCheck].
func NewTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, ControlContext: func(ctx context.Context, _, address string, _ syscall.RawConn) error {
		if check, ok := ctx.Value(checkKey{}).(func(string) error); ok {
			return check(address)
		}
		return nil
	}}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		ForceAttemptHTTP2:   true,
	}
}

type checkKey struct{}

// WithAddressCheck returns a context in which a transport of [NewTransport]
// connects to an address, IP:PORT after the name was resolved, only if check returns
// nil.
func WithAddressCheck(ctx context.Context, check func(address string) error) context.Context {
	return context.WithValue(ctx, checkKey{}, check)
}

// IsLoopback reports whether a host, without a port, is this machine.
func IsLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
