package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/dockercache/dockercache/internal/httpclient"
)

// An origin is the registry that a request is made for, wherever it goes.
type origin struct {
	host  string       // HOST or HOST:PORT
	place atomic.Int32 // a httpclient.Place: of the address that was dialled for it
}

func newOrigin(host string) *origin {
	o := &origin{host: host}
	o.place.Store(int32(httpclient.PlaceOfHost(hostOf(host))))
	return o
}

// dialled records the address of a connection to the registry itself.
func (o *origin) dialled(remote net.Addr) {
	if a, err := netip.ParseAddrPort(remote.String()); err == nil {
		o.place.Store(int32(httpclient.PlaceOf(a.Addr())))
	}
}

// mayLeadTo reports whether the registry may lead to a place: where it is itself, and
// from this machine or its link to private networks, which are further away.
func (o *origin) mayLeadTo(place httpclient.Place) bool {
	own := httpclient.Place(o.place.Load())
	return place == own || place <= httpclient.Private && place <= own
}

// originKey is the key of a context's *origin.
type originKey struct{}

// A ledError is a request that is not made, because of where a registry led it.
type ledError struct {
	from, to string
	address  string // that to is; empty if that is an address itself
	place    httpclient.Place
}

func (e *ledError) Error() string {
	to := e.to
	if e.address != "" && e.address != e.to {
		to += " (" + e.address + ")"
	}
	return fmt.Sprintf("%s leads to %s, %s: not asked, since %s itself is not there", e.from, to, e.place, e.from)
}

// Is reports whether target is [ErrLocalAddress].
func (e *ledError) Is(target error) bool { return target == ErrLocalAddress }

// A guard makes requests by the transport of the options. To where a registry leads,
// by a redirect or as its token server, it makes none that reaches this machine, the
// link, or by an address in place of a name a private network, unless the registry is
// there itself. It trusts the certificates that are set up for the registry.
//
// What counts is the address that is dialled. Only a *http.Transport can be made to
// check that. Through a proxy it is the proxy that resolves names and dials. In both
// other cases a host that is such an address, or localhost, is refused by its text.
type guard struct {
	base       http.RoundTripper
	allowLocal bool
	certs      *certs

	mu         sync.Mutex
	transports map[way]http.RoundTripper
}

// A way is what requests have in common that may share connections.
type way struct {
	host    string // of the registry, if certificates are set up for it
	own     bool   // to the registry itself, with its client certificates
	checked bool
	place   httpclient.Place // to which it may lead, if checked
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.refuses(req); err != nil {
		return nil, err
	}
	o := req.Context().Value(originKey{}).(*origin)
	w := way{own: req.URL.Host == o.host}
	if g.certs.of(o.host) != nil {
		w.host = o.host
	}
	switch proxied := g.proxied(req); {
	case w.own && !proxied:
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			GotConn: func(c httptrace.GotConnInfo) { o.dialled(c.Conn.RemoteAddr()) },
		}))
	case !w.own && !g.allowLocal && !proxied:
		w.checked, w.place = true, httpclient.Place(o.place.Load())
	}
	return g.transport(w).RoundTrip(req)
}

// refuses returns why a request is not made, as far as the text of its host shows.
func (g *guard) refuses(req *http.Request) error {
	o, ok := req.Context().Value(originKey{}).(*origin)
	if !ok {
		return errors.New("a request for no registry")
	}
	place := httpclient.PlaceOfHost(req.URL.Hostname())
	if g.allowLocal || req.URL.Host == o.host || o.mayLeadTo(place) {
		return nil
	}
	return &ledError{o.host, req.URL.Host, "", place}
}

// checkOf returns a check of addresses to dial, IP:PORT. A private network is not
// refused here: storage has names there, as go-containerregistry allows.
func checkOf(ctx context.Context, allowed httpclient.Place, host string) func(string) error {
	return func(address string) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil // not of a network with addresses
		}
		if place := httpclient.PlaceOf(a.Addr()); place > httpclient.Private && place != allowed {
			from := ""
			if o, ok := ctx.Value(originKey{}).(*origin); ok {
				from = o.host
			}
			return &ledError{from, host, a.Addr().String(), place}
		}
		return nil
	}
}

// proxied reports whether a request goes through a proxy.
func (g *guard) proxied(req *http.Request) bool {
	t, ok := g.base.(*http.Transport)
	if !ok || t.Proxy == nil {
		return false
	}
	proxy, err := t.Proxy(req)
	return err == nil && proxy != nil
}

func (g *guard) transport(w way) http.RoundTripper {
	base, ok := g.base.(*http.Transport)
	if !ok || w.host == "" && !w.checked {
		return g.base
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.transports[w]; t != nil {
		return t
	}
	t := base.Clone()
	if w.host != "" {
		t.TLSClientConfig = g.certs.of(w.host).config(t.TLSClientConfig, w.own)
	}
	if w.checked {
		//lint:ignore SA1019 a caller's transport may still have it
		if old := t.Dial; old != nil && t.DialContext == nil {
			t.DialContext = func(_ context.Context, network, address string) (net.Conn, error) { return old(network, address) }
		}
		t.DialContext = checked(t.DialContext, w.place)
		if t.DialTLSContext != nil {
			t.DialTLSContext = checked(t.DialTLSContext, w.place)
		}
	}
	if g.transports == nil {
		g.transports = map[way]http.RoundTripper{}
	}
	g.transports[w] = t
	return t
}

type dial func(ctx context.Context, network, address string) (net.Conn, error)

// checked returns a dial that checks the address of each connection. That of
// [DefaultTransport] has checked it before it connected.
func checked(inner dial, allowed httpclient.Place) dial {
	if inner == nil {
		inner = httpclient.NewTransport().DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		check := checkOf(ctx, allowed, address)
		conn, err := inner(httpclient.WithAddressCheck(ctx, check), network, address)
		if err != nil {
			return nil, err
		}
		if err := check(conn.RemoteAddr().String()); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return conn, nil
	}
}
