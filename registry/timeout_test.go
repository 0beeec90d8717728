package registry_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// slowly is a handler that waits before it answers requests whose path has a part: before
// the header, between it and the first byte of the body, and in the middle of the body.
type slowly struct {
	http.Handler
	part                 string
	header, body, middle time.Duration
}

func (s slowly) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.URL.Path, s.part) {
		s.Handler.ServeHTTP(w, r)
		return
	}
	time.Sleep(s.header)
	s.Handler.ServeHTTP(&slowBody{ResponseWriter: w, slowly: s}, r)
}

type slowBody struct {
	http.ResponseWriter
	slowly
	begun bool
}

func (w *slowBody) Write(p []byte) (int, error) {
	if w.begun || len(p) < 2 {
		return w.ResponseWriter.Write(p)
	}
	w.begun = true
	flush := http.NewResponseController(w.ResponseWriter).Flush
	if err := flush(); err != nil {
		return 0, err
	}
	time.Sleep(w.body)
	n, err := w.ResponseWriter.Write(p[:1])
	if err != nil {
		return n, err
	}
	if err := flush(); err != nil {
		return n, err
	}
	time.Sleep(w.middle)
	m, err := w.ResponseWriter.Write(p[1:])
	return n + m, err
}

// A blob may be slow to begin, for minutes, and must not stand still after that; any other
// answer has less time in all. The error says which limit it was.
func TestSlowAnswers(t *testing.T) {
	const (
		late    = "no first byte came in time (5m0s), see Options.FirstByteTimeout"
		stalled = "no byte came for too long (15s), see Options.StallTimeout"
		slow    = "the answer did not end in time (1m0s), which is 4 times Options.StallTimeout"
	)
	server, image := registrytest.New(t), randomImage(t, 1)
	push(t, server, "image:tag", image)
	manifest, err := image.Manifest()
	require.NoError(t, err)
	layer, config := "/blobs/"+manifest.Layers[0].Digest.String(), "/blobs/"+manifest.Config.Digest.String()
	for name, c := range map[string]struct {
		slowly
		says string // empty: it is served
	}{
		"layer, 20 s":                       {slowly{part: layer, header: 20 * time.Second}, ""},
		"layer, less than 5 min":            {slowly{part: layer, header: 5*time.Minute - 1}, ""},
		"layer, more than 5 min":            {slowly{part: layer, header: 5*time.Minute + 1}, late},
		"layer, body late":                  {slowly{part: layer, header: time.Minute, body: 4*time.Minute - 1}, ""},
		"layer, body too late":              {slowly{part: layer, header: time.Minute, body: 4*time.Minute + 1}, late},
		"layer, body after a late header":   {slowly{part: layer, header: 5*time.Minute - 1, body: 15*time.Second - 1}, ""},
		"layer, pauses":                     {slowly{part: layer, middle: 15*time.Second - 1}, ""},
		"layer, late and pauses":            {slowly{part: layer, header: 4 * time.Minute, middle: 15*time.Second - 1}, ""},
		"layer, stalls":                     {slowly{part: layer, middle: 15*time.Second + 1}, stalled},
		"layer, late and stalls":            {slowly{part: layer, header: 4 * time.Minute, middle: 15*time.Second + 1}, stalled},
		"config, late":                      {slowly{part: config, header: 5*time.Minute - 1}, ""},
		"config, late, all of it":           {slowly{part: config, header: 4 * time.Minute, body: 40 * time.Second, middle: 10 * time.Second}, ""},
		"config, too late":                  {slowly{part: config, header: 5*time.Minute + 1}, late},
		"config, late and too slow":         {slowly{part: config, header: 4 * time.Minute, body: 50 * time.Second, middle: 11 * time.Second}, slow},
		"config, stalls":                    {slowly{part: config, middle: 15*time.Second + 1}, stalled},
		"manifest, less than a minute":      {slowly{part: "/manifests/", header: time.Minute - 1}, ""},
		"manifest, more than a minute":      {slowly{part: "/manifests/", header: time.Minute + 1}, slow},
		"manifest, more than that together": {slowly{part: "/manifests/", header: 50 * time.Second, body: 11 * time.Second}, slow},
		"manifest, stalls":                  {slowly{part: "/manifests/", middle: 15*time.Second + 1}, stalled},
		"login":                             {slowly{part: "/v2/", header: 29 * time.Second}, ""},
		"login, late":                       {slowly{part: "/v2/", header: time.Minute + 1}, slow},
	} {
		for _, whole := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				c.Handler = server
				client := registry.New(inBubble(t, map[string]http.Handler{"registry.example.com": c.slowly}))
				got, err := client.Image(t.Context(), registry.DefaultPlatform(), "registry.example.com/image:tag")
				if err == nil {
					r := remote{got, server, layersOf(t, image)[0], contentOf(t, image, 0)}
					_, err = r.read(t.Context(), 0, map[bool]int64{true: r.layer.Size, false: r.layer.Size - 1}[whole])
				}
				if c.says == "" {
					require.NoError(t, err, name)
					return
				}
				require.ErrorIs(t, err, registry.ErrUnreachable, name)
				assert.ErrorContains(t, err, c.says, name)
				var typed *registry.Error
				require.ErrorAs(t, err, &typed)
				assert.True(t, typed.Temporary(), name)
			})
		}
	}
}

// The limits are options. Each of a redirect and of where it leads has the time of a first
// byte; what the reader of a body takes between two reads is no time of the server's.
func TestFirstByteTimeout(t *testing.T) {
	server, image := registrytest.New(t), randomImage(t, 1)
	push(t, server, "image:tag", image)
	synctest.Test(t, func(t *testing.T) {
		storage := slowly{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Authorization")
			_, _ = w.Write(contentOf(t, image, 0))
		}), part: "/blobs/", header: 25 * time.Second}
		layer := layersOf(t, image)[0]
		registryHost := slowly{Handler: server, part: layer.Digest.Hex, header: 25 * time.Second}
		o := inBubble(t, map[string]http.Handler{"registry.example.com": registryHost, "storage.example.com": storage})
		o.FirstByteTimeout, o.StallTimeout = 30*time.Second, 5*time.Second
		r := remote{resolvedInBubble(t, o, "registry.example.com/image:tag"), server, layer, contentOf(t, image, 0)}
		server.SetQuirks(registrytest.Quirks{RedirectTo: "http://storage.example.com"})
		begin := time.Now()
		body, err := r.ReadRange(t.Context(), layer.Digest, 0, layer.Size)
		require.NoError(t, err)
		assert.Equal(t, 50*time.Second, time.Since(begin))
		for range 3 {
			time.Sleep(time.Hour)
			_, err = io.ReadFull(body, make([]byte, 100))
			require.NoError(t, err)
		}
		require.NoError(t, body.Close())
	})
}

// What takes its time before a request is sent is not the server's first byte: a
// connection has to be there sooner.
func TestConnectionThatHangs(t *testing.T) {
	server, image := registrytest.New(t), randomImage(t, 1)
	push(t, server, "image:tag", image)
	synctest.Test(t, func(t *testing.T) {
		o := inBubble(t, map[string]http.Handler{"registry.example.com": server})
		r := remote{resolvedInBubble(t, o, "registry.example.com/image:tag"), server, layersOf(t, image)[0], contentOf(t, image, 0)}
		transport := o.Transport.(*http.Transport)
		transport.CloseIdleConnections()
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		synctest.Wait()
		begin := time.Now()
		_, err := r.read(t.Context(), 0, 10)
		require.ErrorContains(t, err, "no byte came for too long (15s), see Options.StallTimeout")
		assert.Equal(t, 15*time.Second, time.Since(begin))
	})
}

// An error's text that comes byte by byte ends too, though it is the answer to a range.
func TestErrorThatDrips(t *testing.T) {
	server, image := registrytest.New(t), randomImage(t, 1)
	push(t, server, "image:tag", image)
	for _, status := range []int{404, 429, 503} {
		synctest.Test(t, func(t *testing.T) {
			drips := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") == "" {
					server.ServeHTTP(w, r)
					return
				}
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(status)
				for r.Context().Err() == nil {
					_, _ = w.Write([]byte("x"))
					_ = http.NewResponseController(w).Flush()
					time.Sleep(time.Second)
				}
			})
			o := inBubble(t, map[string]http.Handler{"registry.example.com": drips})
			r := remote{resolvedInBubble(t, o, "registry.example.com/image:tag"), server, layersOf(t, image)[0], contentOf(t, image, 0)}
			begin := time.Now()
			_, err := r.read(t.Context(), 0, 10)
			require.Error(t, err)
			assert.LessOrEqual(t, time.Since(begin), 2*time.Minute)
		})
	}
}

// What is asked for on the way of a range is no blob: another token, and the login at a
// source that is needed for it.
func TestSlowOnTheWayOfARange(t *testing.T) {
	p := newPair(t)
	for name, c := range map[string]struct {
		slowly
		origin int
	}{
		"token": {slowly{Handler: p.mirror, part: "/token", header: time.Minute + 1}, 0},
		"login": {slowly{Handler: p.own, part: "/v2/", header: time.Minute + 1}, 1},
	} {
		p.mirror.SetQuirks(registrytest.Quirks{Token: true})
		synctest.Test(t, func(t *testing.T) {
			handlers := []http.Handler{p.mirror, p.own}
			serve := func(n int) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) { handlers[n].ServeHTTP(w, r) }
			}
			o := inBubble(t, map[string]http.Handler{"mirror.example.com": serve(0), "own.example.com": serve(1)})
			r := remote{resolvedInBubble(t, o, "mirror.example.com/mirror/image:tag", "own.example.com/own/image:tag"), p.mirror, layersOf(t, p.image)[0], contentOf(t, p.image, 0)}
			handlers[c.origin] = c.slowly
			p.mirror.ExpireTokens()
			_, err := r.origins()[c.origin].read(t.Context(), r.layer.Digest, 0, 10)
			require.ErrorContains(t, err, "the answer did not end in time (1m0s)", name)
		})
	}
}
