package registry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/httpclient"
)

func forRegistry(t *testing.T, o *origin, to string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(context.WithValue(t.Context(), originKey{}, o), http.MethodGet, to, nil)
	require.NoError(t, err)
	return r
}

// Where a registry may lead, by the text of the host: with a transport that is not
// known, and through a proxy.
func TestWhereARegistryMayLead(t *testing.T) {
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"registry.example.com", "https://storage.example.com", true},
		{"registry.example.com", "https://registry.example.com", true},
		{"registry.example.com", "https://8.8.8.8", true},
		{"registry.example.com", "https://10.0.0.7", false}, // as go-containerregistry
		{"registry.example.com", "https://[fd00:ec2::254]", false},
		{"registry.example.com", "http://127.0.0.1:8080", false},
		{"registry.example.com", "https://localhost", false},
		{"registry.example.com", "https://0.0.0.0:5000", false},
		{"registry.example.com", "https://[::]", false},
		{"registry.example.com", "https://[::1]", false},
		{"registry.example.com", "https://[::ffff:127.0.0.1]", false},
		{"registry.example.com", "http://169.254.169.254/latest", false},
		{"registry.example.com", "http://[64:ff9b::a9fe:a9fe]/latest", false},
		{"127.0.0.1:5000", "http://127.0.0.1:6000", true},
		{"127.0.0.1:5000", "http://0.0.0.0:6000", true},
		{"localhost:5000", "http://127.0.0.1:6000", true},
		{"127.0.0.1:5000", "http://169.254.169.254", false},
		{"127.0.0.1:5000", "https://10.0.0.7", true}, // no further in than it is
		{"localhost:5000", "https://[fd00::7]:9000", true},
		{"[::1]:5000", "https://192.168.1.5", true},
		{"[::1]:5000", "http://127.0.0.1:9000", true},
		{"10.0.0.5:5000", "https://192.168.1.5", true},
		{"10.0.0.5:5000", "https://169.254.169.254", false},
		{"10.0.0.5:5000", "https://10.0.0.7", true},
		{"10.0.0.5:5000", "https://127.0.0.1", false},
	} {
		for _, allow := range []bool{false, true} {
			asked := 0
			answer := func(*http.Request) (*http.Response, error) {
				asked++
				return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
			}
			g := &guard{base: roundTripper(answer), allowLocal: allow, certs: &certs{}}
			_, err := g.RoundTrip(forRegistry(t, newOrigin(c.from), c.to))
			assert.Equal(t, c.ok || allow, err == nil, "%v: %v", c, err)
			if err != nil {
				assert.Zero(t, asked)
				require.ErrorIs(t, err, ErrLocalAddress)
				require.ErrorContains(t, err, c.from+" leads to ")
			}
		}
	}
}

// What counts is the address that is dialled: names may be resolved to anything.
func TestDialledAddresses(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	// As if DNS had these names; the addresses of the server behind them are local.
	resolve := func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, _ := net.SplitHostPort(address)
		if strings.HasSuffix(host, ".example.com") {
			address = net.JoinHostPort("127.0.0.1", port)
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	const led = "http://led.example.com"
	for name, base := range map[string]*http.Transport{
		"dial": {DialContext: resolve},
		"old": {Dial: func(network, address string) (net.Conn, error) {
			return resolve(context.Background(), network, address)
		}}, //nolint:staticcheck // transports may have it
		"default": DefaultTransport(),
	} {
		to := led
		if name == "default" {
			to = "http://localhost.:" + port // resolved by the real dialer
		}
		g := &guard{base: base, certs: &certs{}}
		away := newOrigin("registry.example.com")
		if name == "default" {
			// The text of the host is of no help here.
			g.base.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return httpclient.NewTransport().DialContext(ctx, network, "localhost:"+port)
			}
			to = led
		}
		_, err := g.RoundTrip(forRegistry(t, away, to))
		require.ErrorIs(t, err, ErrLocalAddress, name)
		assert.ErrorContains(t, err, "registry.example.com leads to led.example.com", name)
		assert.Zero(t, asked, name)
		again, err := checkRetry(t.Context(), nil, err)
		assert.False(t, again)
		require.NoError(t, err)

		// The registry itself turns out to be here, so it may lead here.
		here := newOrigin("here.example.com")
		for _, to := range []string{"http://here.example.com", to} {
			resp, err := g.RoundTrip(forRegistry(t, here, to))
			require.NoError(t, err, name)
			resp.Body.Close()
		}
		// That connection is no way in for another registry.
		_, err = g.RoundTrip(forRegistry(t, away, to))
		require.ErrorIs(t, err, ErrLocalAddress, name)
		asked = 0
	}
}

// A proxy resolves and dials. Its own address is not the registry's.
func TestGuardWithAProxy(t *testing.T) {
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked = append(asked, r.URL.Host) }))
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	base := DefaultTransport()
	base.Proxy = http.ProxyURL(u)
	g := &guard{base: base, certs: &certs{}}
	o := newOrigin("registry.example.com")
	for _, to := range []string{"http://registry.example.com", "http://storage.example.com"} {
		resp, err := g.RoundTrip(forRegistry(t, o, to))
		require.NoError(t, err)
		resp.Body.Close()
	}
	_, err = g.RoundTrip(forRegistry(t, o, "http://127.0.0.1"))
	require.ErrorIs(t, err, ErrLocalAddress)
	assert.Equal(t, []string{"registry.example.com", "storage.example.com"}, asked)
}

// A request that is for no registry is a mistake of this package.
func TestGuardWantsAnOrigin(t *testing.T) {
	r, err := http.NewRequest(http.MethodGet, "http://x", nil)
	require.NoError(t, err)
	_, err = (&guard{base: roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("asked") })}).RoundTrip(r)
	require.EqualError(t, err, "a request for no registry")
}
