package registry_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// wants is a registry before another one that wants authentication in its own way.
type wants struct {
	open   bool     // GET /v2/ wants none
	offers []string // the schemes that it names
	takes  string   // the one that it takes
	silent bool     // names them at /v2/ alone

	mu   sync.Mutex
	seen []string // Authorization of all requests but those for a token
}

func (f *wants) start(t *testing.T, server *registrytest.Server) (host string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		good := user == "user" && password == "right-password"
		switch {
		case r.URL.Path == "/token":
			if !good {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			_, _ = io.WriteString(w, `{"token":"good-token"}`)
			return
		case f.open && r.URL.Path == "/v2/":
			return
		}
		f.mu.Lock()
		f.seen = append(f.seen, r.Header.Get("Authorization"))
		f.mu.Unlock()
		if f.takes == "Basic" && good || f.takes == "Bearer" && r.Header.Get("Authorization") == "Bearer good-token" {
			proxyTo(server, w, r)
			return
		}
		for _, scheme := range f.offers {
			if !f.silent || r.URL.Path == "/v2/" {
				w.Header().Add("WWW-Authenticate", fmt.Sprintf(`%s realm="http://%s/token",service="x"`, scheme, r.Host))
			}
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// Each challenge is answered where it is asked, and of several schemes the one that
// the registry takes.
func TestChallengesAreAnswered(t *testing.T) {
	server := registrytest.New(t)
	ref := push(t, server, "team/image:tag", randomImage(t, 1))
	for _, c := range []*wants{
		{offers: []string{"Bearer"}, takes: "Bearer"},
		{offers: []string{"Basic"}, takes: "Basic"},
		{open: true, offers: []string{"Bearer"}, takes: "Bearer"},
		{open: true, offers: []string{"Basic"}, takes: "Basic"},
		{offers: []string{"Bearer", "Basic"}, takes: "Basic"},
		{offers: []string{"Basic", "Bearer"}, takes: "Bearer"},
		{offers: []string{"Basic", "Bearer"}, takes: "Basic"},
		{open: true, offers: []string{"Negotiate", "Basic", "Bearer"}, takes: "Bearer"},
		{open: true, offers: []string{"Bearer", "Basic"}, takes: "Basic"},
		{offers: []string{"Bearer"}, takes: "Bearer", silent: true},
	} {
		name := fmt.Sprintf("%+v", c)
		own := strings.Replace(ref, server.Host(), c.start(t, server), 1)
		client := newClient(func(o *registry.Options) { o.Keychain = right })
		image, err := client.Image(t.Context(), registry.DefaultPlatform(), own)
		require.NoError(t, err, name)
		_ = image
		c.seen = nil
		_, err = client.Image(t.Context(), registry.DefaultPlatform(), own)
		require.NoError(t, err, name)
		assert.Len(t, c.seen, 2, "%s: what worked is used from then on", name)

		client = newClient(func(o *registry.Options) { o.Keychain = fixed{"user", "wrong-password"} })
		_, err = client.Image(t.Context(), registry.DefaultPlatform(), own)
		require.ErrorIs(t, err, registry.ErrDenied, name)
	}
}

// A host that leads to another registry, as lscr.io to ghcr.io: that one's challenge is
// answered, for it alone, and without the credential of the first.
func TestRedirectToAnotherRegistry(t *testing.T) {
	for name, c := range map[string]struct {
		public bool // the other registry gives tokens to everybody
		open   bool // the first one answers at /v2/ itself
		hides  bool // the other registry says nothing but 401
	}{
		"all":              {public: true},
		"open":             {public: true, open: true},
		"not for all":      {public: false},
		"not for all, 401": {public: false, hides: true},
	} {
		other := registrytest.New(t)
		image := randomImage(t, 2)
		ref := push(t, other, "team/image:tag", image)
		other.SetQuirks(registrytest.Quirks{Token: true, User: "another", Password: "another", Public: c.public})
		to := other.Host()
		if c.hides {
			mute := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
			defer mute.Close()
			to = strings.TrimPrefix(mute.URL, "http://")
		}
		var sent []string
		first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sent = append(sent, r.Header.Get("Authorization"))
			if c.open && r.URL.Path == "/v2/" {
				return
			}
			http.Redirect(w, r, "http://"+to+r.URL.Path, http.StatusTemporaryRedirect)
		}))
		defer first.Close()
		var log bytes.Buffer
		client := newClient(func(o *registry.Options) { o.Keychain, o.Logger = right, logTo(&log) })
		got, err := client.Image(t.Context(), registry.DefaultPlatform(), strings.Replace(ref, other.Host(), strings.TrimPrefix(first.URL, "http://"), 1))
		if c.public {
			require.NoError(t, err, name)
			content, err := remote{Image: got, layer: layersOf(t, image)[0]}.read(t.Context(), 0, 10)
			require.NoError(t, err, name)
			assert.Equal(t, contentOf(t, image, 0)[:10], content)
			assert.Equal(t, 1, other.TokensIssued(), "%s: one token for all", name)
		} else {
			require.ErrorIs(t, err, registry.ErrDenied, name)
			require.NotErrorIs(t, err, registry.ErrUnreachable, name)
		}
		for _, r := range other.Requests() {
			assert.NotContains(t, r.Header.Get("Authorization"), "Basic", name)
		}
		for _, header := range sent {
			assert.NotContains(t, header, "Bearer", "%s: the other's token is for the other", name)
		}
		assert.NotContains(t, log.String(), "right-password")
	}
}

// A blob's storage that says 401 with a challenge is no expired signature.
func TestStorageThatDenies(t *testing.T) {
	for _, challenge := range []string{"", `Basic realm="x"`} {
		asked := 0
		storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked++
			if challenge != "" {
				w.Header().Set("WWW-Authenticate", challenge)
			}
			w.WriteHeader(http.StatusUnauthorized)
		}))
		defer storage.Close()
		r := resolvedWith(t, registrytest.Quirks{}, nil)
		r.server.SetQuirks(registrytest.Quirks{RedirectTo: storage.URL})
		_, err := r.read(t.Context(), 0, r.layer.Size) // a range would be asked for once more as a whole
		want := map[bool]error{true: registry.ErrUnreachable, false: registry.ErrDenied}[challenge == ""]
		require.ErrorIs(t, err, want)
		assert.Equal(t, map[bool]int{true: 2, false: 1}[challenge == ""], asked, "another signature was asked for")
	}
}

// Where a registry leads is said with the one who led there.
func TestRegistryThatLeadsHere(t *testing.T) {
	here := 0
	local := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { here++ }))
	defer local.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(local.URL, "http://"), ":")
	for _, to := range []string{local.URL, "http://localhost:" + port, "http://0.0.0.0:" + port, "https://169.254.169.254/latest", "http://[::ffff:127.0.0.1]:" + port} {
		for _, part := range []string{"/v2/", "/v2/image/manifests/", "realm"} {
			client := newClient(func(o *registry.Options) {
				o.PlainHTTP = []string{"registry.example.com"}
				o.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
					if r.URL.Host != "registry.example.com" {
						return http.DefaultTransport.RoundTrip(r)
					}
					resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}
					switch {
					case part == "realm":
						resp.StatusCode = http.StatusUnauthorized
						resp.Header.Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token"`, to))
					case strings.HasPrefix(r.URL.Path, part):
						resp.StatusCode = http.StatusTemporaryRedirect
						resp.Header.Set("Location", to+r.URL.Path)
					}
					return resp, nil
				})
			})
			_, err := client.Image(t.Context(), registry.DefaultPlatform(), "registry.example.com/image:tag")
			require.ErrorIs(t, err, registry.ErrInvalidAnswer, "%s %s", to, part)
			require.NotErrorIs(t, err, registry.ErrUnreachable)
			if strings.HasPrefix(to, "http:") && part == "realm" {
				continue // refused already: the registry answered over TLS
			}
			require.ErrorIs(t, err, registry.ErrLocalAddress, "%s %s", to, part)
			assert.ErrorContains(t, err, "registry.example.com leads to "+strings.TrimPrefix(strings.TrimPrefix(strings.TrimSuffix(to, "/latest"), "http://"), "https://"))
		}
	}
	assert.Zero(t, here)
}
