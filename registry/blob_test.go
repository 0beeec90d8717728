package registry_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// askedFor returns the Range headers of the requests for a blob, in order; empty for a
// request without one.
func askedFor(s *registrytest.Server, digest v1.Hash) (ranges []string) {
	for _, r := range s.Requests() {
		if strings.HasSuffix(r.Path, "/blobs/"+digest.String()) {
			ranges = append(ranges, r.Header.Get("Range"))
		}
	}
	return ranges
}

// A whole blob is asked for without a range, and so it is served by a registry that
// refuses them; an answer 206 for all of it is as good.
func TestWholeBlobHasNoRange(t *testing.T) {
	for _, q := range []registrytest.Quirks{{}, {RangeStatus: 400}, {RangeStatus: 501}, {IgnoreRange: true}, {WrongContentRange: true}} {
		r := resolved(t, nil)
		r.server.SetQuirks(q)
		got, err := r.read(t.Context(), 0, r.layer.Size)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(r.content, got))
		assert.Equal(t, []string{""}, askedFor(r.server, r.layer.Digest))
	}
	for header, kind := range map[string]error{"bytes 0-%d/%d": nil, "bytes 0-%d/*": nil, "bytes 1-%d/%d": registry.ErrInvalidAnswer, "": registry.ErrInvalidAnswer} {
		image := randomImage(t, 1)
		server := registrytest.New(t)
		push(t, server, "image:tag", image)
		synctest.Test(t, func(t *testing.T) {
			r := remote{nil, server, layersOf(t, image)[0], contentOf(t, image, 0)}
			o := inBubble(t, map[string]http.Handler{"registry.example.com": http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if !strings.HasSuffix(req.URL.Path, r.layer.Digest.String()) {
					server.ServeHTTP(w, req)
					return
				}
				if strings.Count(header, "%d") == 2 {
					w.Header().Set("Content-Range", fmt.Sprintf(header, r.layer.Size-1, r.layer.Size))
				} else if header != "" {
					w.Header().Set("Content-Range", fmt.Sprintf(header, r.layer.Size-1))
				}
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(r.content)
			})})
			r.Image = resolvedInBubble(t, o, "registry.example.com/image:tag")
			got, err := r.read(t.Context(), 0, r.layer.Size)
			if kind != nil {
				require.ErrorIs(t, err, kind, header)
				return
			}
			require.NoError(t, err, header)
			assert.True(t, bytes.Equal(r.content, got))
		})
	}
}

// What a registry, or its storage, answers to ranges alone is no error of the blob: it can
// be read in one piece. That is remembered, of the blob on that host.
func TestRefusedRanges(t *testing.T) {
	sure := []int{400, 405, 406, 411, 412, 413, 414, 417, 501, 505}
	for _, status := range slices.Concat(sure, []int{401, 403, 404, 408, 409, 410, 416, 418, 500, 502, 504, 520}) {
		for _, storage := range []bool{false, true} {
			name := fmt.Sprintf("%d, storage %v", status, storage)
			r := resolved(t, nil)
			q := registrytest.Quirks{RangeStatus: status}
			if storage {
				if status == 401 || status == 403 {
					continue // a signature that has expired, see TestSignaturesAndRanges
				}
				q.Storage = registrytest.NewStorage(t, r.server, 0)
			}
			r.server.SetQuirks(q)
			for _, offset := range []int64{10, 0} {
				_, err := r.read(t.Context(), offset, 100)
				require.ErrorIs(t, err, registry.ErrNoRanges, name)
				var ignorer interface{ IgnoresRange() bool }
				require.ErrorAs(t, err, &ignorer)
				assert.True(t, ignorer.IgnoresRange(), name)
			}
			asked := askedFor(r.server, r.layer.Digest)
			if slices.Contains(sure, status) {
				assert.Equal(t, []string{"bytes=10-109"}, asked, name)
			} else {
				assert.LessOrEqual(t, len(asked), 7, name) // a denied one is asked for with all credentials, a signature is renewed
				assert.Contains(t, asked, "", name)
			}
			got, err := r.read(t.Context(), 0, r.layer.Size)
			require.NoError(t, err, name)
			assert.True(t, bytes.Equal(r.content, got), name)
			assert.Len(t, askedFor(r.server, r.layer.Digest), len(asked)+1, name)
		}
	}
}

// A storage that refuses the signature of a range, and again the next, and serves no range
// meanwhile, may refuse ranges.
func TestSignaturesAndRanges(t *testing.T) {
	server, image := registrytest.New(t), randomImage(t, 1)
	push(t, server, "image:tag", image)
	layer := layersOf(t, image)[0]
	synctest.Test(t, func(t *testing.T) {
		whole, refuses := 0, true
		storage := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Header.Get("Range") == "":
				whole++
			case refuses:
				w.WriteHeader(http.StatusForbidden)
				return
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(contentOf(t, image, 0)))
		})
		o := inBubble(t, map[string]http.Handler{"registry.example.com": server, "storage.example.com": storage})
		r := remote{resolvedInBubble(t, o, "registry.example.com/image:tag"), server, layer, contentOf(t, image, 0)}
		server.SetQuirks(registrytest.Quirks{RedirectTo: "http://storage.example.com"})
		expired := func() {
			t.Helper()
			_, err := r.read(t.Context(), 10, 100)
			require.ErrorIs(t, err, registry.ErrUnreachable)
			require.NotErrorIs(t, err, registry.ErrNoRanges)
			time.Sleep(1500 * time.Millisecond)
		}
		expired()
		expired()
		refuses = false
		_, err := r.read(t.Context(), 10, 100)
		require.NoError(t, err)
		refuses = true
		expired()
		expired()
		assert.Zero(t, whole)
		_, err = r.read(t.Context(), 10, 100)
		require.ErrorIs(t, err, registry.ErrNoRanges)
		assert.Equal(t, 1, whole)
	})
}

// An error that the whole blob has too is that error, and asked about once more in all.
func TestErrorsThatAreNotAboutRanges(t *testing.T) {
	for status, kind := range map[int]error{403: registry.ErrDenied, 404: registry.ErrNotFound, 409: registry.ErrInvalidAnswer, 500: registry.ErrUnreachable, 504: registry.ErrUnreachable} {
		server, image := registrytest.New(t), randomImage(t, 1)
		push(t, server, "image:tag", image)
		synctest.Test(t, func(t *testing.T) {
			r := remote{resolvedInBubble(t, inBubble(t, map[string]http.Handler{"registry.example.com": server}), "registry.example.com/image:tag"), server, layersOf(t, image)[0], contentOf(t, image, 0)}
			server.SetQuirks(registrytest.Quirks{BlobStatus: status})
			for range 3 {
				_, err := r.read(t.Context(), 10, 100)
				require.ErrorIs(t, err, kind, status)
				require.NotErrorIs(t, err, registry.ErrNoRanges)
			}
			assert.Equal(t, []string{"bytes=10-109", "", "bytes=10-109", "bytes=10-109"}, askedFor(server, r.layer.Digest), status)
			time.Sleep(time.Minute)
			server.SetQuirks(registrytest.Quirks{RangeStatus: status})
			_, err := r.read(t.Context(), 10, 100)
			require.ErrorIs(t, err, registry.ErrNoRanges, status)
		})
	}
	for _, status := range []int{429, 503} { // these are about the time
		r := resolved(t, nil)
		r.server.SetQuirks(registrytest.Quirks{RangeStatus: status})
		_, err := r.read(t.Context(), 10, 100)
		require.ErrorIs(t, err, registry.ErrUnreachable)
		assert.Equal(t, []string{"bytes=10-109"}, askedFor(r.server, r.layer.Digest), status)
	}
}

// A fault that has passed when the range is asked for again says nothing about ranges.
func TestPassingFaultOfARange(t *testing.T) {
	for _, status := range []int{403, 404, 500, 502} {
		r := resolved(t, nil)
		r.server.SetQuirks(registrytest.Quirks{RangeStatus: status, RangeStatusCount: 1})
		for range 2 {
			got, err := r.read(t.Context(), 10, 100)
			require.NoError(t, err, status)
			assert.Equal(t, r.content[10:110], got)
		}
	}
}

// Many ranges that are refused at the same time are looked into once.
func TestRangesRefusedAtOnce(t *testing.T) {
	r := resolved(t, nil)
	r.server.SetQuirks(registrytest.Quirks{RangeStatus: 403, RangeStatusCount: 0})
	var group sync.WaitGroup
	for n := range int64(16) {
		group.Go(func() {
			_, err := r.read(t.Context(), 10+n, 100)
			assert.ErrorIs(t, err, registry.ErrNoRanges)
		})
	}
	group.Wait()
	whole := 0
	for _, header := range askedFor(r.server, r.layer.Digest) {
		if header == "" {
			whole++
		}
	}
	assert.Equal(t, 1, whole)
}

// After a few such blobs no range of any blob is asked for, for some minutes; then it is
// tried again.
func TestRangelessRepository(t *testing.T) {
	for q, several := range map[*registrytest.Quirks]int{{RangeStatus: 400}: 3, {RangeStatus: 403}: 3, {IgnoreRange: true}: 1} { // the last is an answer, not a refusal
		server, image := registrytest.New(t), randomImage(t, 5)
		push(t, server, "image:tag", image)
		layers := layersOf(t, image)
		synctest.Test(t, func(t *testing.T) {
			r := remote{resolvedInBubble(t, inBubble(t, map[string]http.Handler{"registry.example.com": server}), "registry.example.com/image:tag"), server, layers[0], contentOf(t, image, 0)}
			server.SetQuirks(*q)
			for _, layer := range layers {
				r.layer = layer
				_, err := r.read(t.Context(), 10, 100)
				require.ErrorIs(t, err, registry.ErrNoRanges)
			}
			for n, layer := range layers {
				asked := len(askedFor(server, layer.Digest))
				assert.Equal(t, n < several, asked > 0, n)
			}
			server.SetQuirks(registrytest.Quirks{})
			time.Sleep(9 * time.Minute)
			_, err := r.read(t.Context(), 10, 100)
			require.ErrorIs(t, err, registry.ErrNoRanges)
			time.Sleep(2 * time.Minute)
			_, err = r.read(t.Context(), 10, 100)
			require.NoError(t, err, "a proxy that was set up wrongly may be right again")
		})
	}
}

// 416 is also the answer to a range behind the end of a blob that is shorter than its
// manifest declares: what it states, or the whole blob's length, tells the two apart.
func TestUnsatisfiableRanges(t *testing.T) {
	image := randomImage(t, 1)
	server := registrytest.New(t)
	push(t, server, "image:tag", image)
	layer, content := layersOf(t, image)[0], contentOf(t, image, 0)
	for name, c := range map[string]struct {
		states string // Content-Range
		length int    // of the whole blob; -1 is not stated, 0 is an answer 404
		kind   error
		says   string
	}{
		"states another size":        {fmt.Sprintf("bytes */%d", layer.Size-1), len(content), registry.ErrSize, fmt.Sprintf("the registry has none at 10: it has %d", layer.Size-1)},
		"states the size":            {fmt.Sprintf("bytes */%d", layer.Size), len(content), registry.ErrNoRanges, "416"},
		"states nothing":             {"", len(content), registry.ErrNoRanges, "416"},
		"states nonsense":            {"bytes */many", len(content), registry.ErrNoRanges, "416"},
		"shorter":                    {"", 5, registry.ErrSize, "the manifest declares"},
		"longer":                     {"", len(content) + 1, registry.ErrSize, "the manifest declares"},
		"no length":                  {"", -1, registry.ErrNoRanges, "416"},
		"the whole is refused too":   {"", 0, registry.ErrInvalidAnswer, "416"},
		"states a size beyond int64": {"bytes */99999999999999999999", len(content), registry.ErrNoRanges, "416"},
	} {
		synctest.Test(t, func(t *testing.T) {
			o := inBubble(t, map[string]http.Handler{"registry.example.com": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case !strings.HasSuffix(r.URL.Path, layer.Digest.String()):
					server.ServeHTTP(w, r)
				case r.Header.Get("Range") != "":
					if c.states != "" {
						w.Header().Set("Content-Range", c.states)
					}
					w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				case c.length == 0:
					w.WriteHeader(http.StatusNotFound)
				default:
					if c.length > 0 {
						w.Header().Set("Content-Length", fmt.Sprint(c.length))
					}
					_ = http.NewResponseController(w).Flush()
					_, _ = w.Write(content[:min(max(c.length, 0), len(content))])
				}
			})})
			r := remote{resolvedInBubble(t, o, "registry.example.com/image:tag"), server, layer, content}
			_, err := r.read(t.Context(), 10, 100)
			require.ErrorIs(t, err, c.kind, name)
			assert.ErrorContains(t, err, c.says, name)
		})
	}
}

// An answer 206 that is not one range has no byte that could be used; the whole blob is
// asked for then.
func TestAnswersOfSeveralRanges(t *testing.T) {
	image := randomImage(t, 1)
	server := registrytest.New(t)
	push(t, server, "image:tag", image)
	layer := layersOf(t, image)[0]
	for _, header := range []http.Header{{}, {"Content-Type": {"multipart/byteranges; boundary=x"}}, {"Content-Range": {"bytes 10-109"}}, {"Content-Range": {"items 10-109/1000"}}} {
		synctest.Test(t, func(t *testing.T) {
			o := inBubble(t, map[string]http.Handler{"registry.example.com": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") == "" {
					server.ServeHTTP(w, r)
					return
				}
				for name, values := range header {
					w.Header()[name] = values
				}
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write([]byte("--x\r\nContent-Range: bytes 10-19/100\r\n\r\n0123456789\r\n--x--"))
			})})
			r := remote{resolvedInBubble(t, o, "registry.example.com/image:tag"), server, layer, contentOf(t, image, 0)}
			_, err := r.read(t.Context(), 10, 100)
			require.ErrorIs(t, err, registry.ErrNoRanges)
			got, err := r.read(t.Context(), 0, layer.Size)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(r.content, got))
		})
	}
}
