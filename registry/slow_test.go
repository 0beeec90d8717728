package registry_test

import (
	"bytes"
	"io"
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

// A drip is a body of which one byte comes each second, by the clock of the test.
type drip struct {
	*http.Request
	rest io.Reader
}

func (d *drip) Read(p []byte) (int, error) {
	select {
	case <-time.After(time.Second):
		return d.rest.Read(p[:1])
	case <-d.Context().Done():
		return 0, d.Context().Err()
	}
}

func (d *drip) Close() error { return nil }

// record makes requests to a server and keeps the answers, to play them without it.
type record map[string]*http.Response

func (r record) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	kept := *resp
	kept.Body = io.NopCloser(bytes.NewReader(body))
	resp.Body = io.NopCloser(bytes.NewReader(body))
	r[req.URL.Path+req.Header.Get("Range")] = &kept
	return resp, err
}

// Answers that come byte by byte end, and the next source is asked; a range goes on,
// as long as it does not stall.
func TestSmallAnswersEnd(t *testing.T) {
	server := registrytest.New(t)
	image := randomImage(t, 1)
	ref := push(t, server, "image:tag", image)
	server.SetQuirks(registrytest.Quirks{Token: true})
	answers := record{}
	got, err := newClient(func(o *registry.Options) { o.Transport = answers }).Image(t.Context(), registry.DefaultPlatform(), ref)
	require.NoError(t, err)
	layer := layersOf(t, image)[0].Digest
	body, err := got.ReadRange(t.Context(), layer, 0, 1000)
	require.NoError(t, err)
	want, err := io.ReadAll(body)
	require.NoError(t, err)

	for _, slow := range []string{"/v2/", "/token", "/v2/image/manifests/tag", "/v2/image/blobs/"} {
		synctest.Test(t, func(t *testing.T) {
			transport := roundTripper(func(r *http.Request) (*http.Response, error) {
				answer := answers[r.URL.Path+r.Header.Get("Range")]
				if answer == nil {
					return nil, io.ErrUnexpectedEOF
				}
				resp := *answer
				body, _ := io.ReadAll(answer.Body)
				answer.Body = io.NopCloser(bytes.NewReader(body))
				resp.Body, resp.Request = io.NopCloser(bytes.NewReader(body)), r
				isSlow := strings.HasPrefix(r.URL.Path, slow) && (slow != "/v2/" || r.URL.Path == slow)
				if r.URL.Scheme == "https" && r.URL.Host == "slow.example.com" && isSlow || r.Header.Get("Range") != "" {
					if r.Header.Get("Range") == "" {
						resp.Body = io.NopCloser(strings.NewReader(strings.Repeat(" ", 10_000)))
						body = bytes.Repeat([]byte(" "), 10_000)
						resp.ContentLength = int64(len(body))
					}
					resp.Body = &drip{r, bytes.NewReader(body)}
				}
				if challenge := answer.Header.Get("WWW-Authenticate"); challenge != "" {
					resp.Header = answer.Header.Clone()
					resp.Header.Set("WWW-Authenticate", `Bearer realm="https://`+r.URL.Host+`/token"`)
				}
				return &resp, nil
			})
			begin := time.Now() // of the bubble's clock
			client := newClient(func(o *registry.Options) { o.Transport = transport })
			found, err := client.Image(t.Context(), registry.DefaultPlatform(), "slow.example.com/image:tag", "good.example.com/image:tag")
			require.NoError(t, err, slow)
			if slow != "/v2/" { // its body is of no use, whether it ends or not
				assert.Contains(t, found.Source(), "good.example.com", slow)
			}
			assert.LessOrEqual(t, time.Since(begin), 2*time.Minute, slow)

			body, err := found.ReadRange(t.Context(), layer, 0, 1000)
			require.NoError(t, err)
			content, err := io.ReadAll(body)
			require.NoError(t, err)
			assert.Equal(t, want, content, "a range of 1000 s")
			require.NoError(t, body.Close())

			// Alone, the error says what was so.
			if slow != "/v2/" {
				_, err = newClient(func(o *registry.Options) { o.Transport = transport }).Image(t.Context(), registry.DefaultPlatform(), "slow.example.com/image:tag")
				require.ErrorIs(t, err, registry.ErrUnreachable)
				require.ErrorContains(t, err, "the answer did not end in time (1m0s)")
			}
		})
	}
}
