// Package httpclient has what all of the project's own HTTP clients need: a
// transport, and which addresses are this machine's.
package httpclient

import (
	"net"
	"net/http"
	"time"
)

// NewTransport returns a transport that uses the proxy that the environment
// names and limits connecting to 10 s: with retries, a host that swallows packets
// holds a program up for a minute, where net/http's 30 s would make it minutes.
func NewTransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		ForceAttemptHTTP2:   true,
	}
}

// IsLoopback reports whether a host, without a port, is this machine.
func IsLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// MayRedirect reports whether a server on host from may redirect to host to: not
// to services of this machine or to a cloud's metadata, unless it runs here too.
func MayRedirect(from, to string) bool {
	return IsLoopback(from) || !IsLoopback(to) && !net.ParseIP(to).IsLinkLocalUnicast()
}
