package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

func TestGreeting(t *testing.T) {
	c := connect(newShelf(t))
	for _, path := range []string{"/v2", "/v2/"} {
		got := c.get(path)
		assert.Equal(t, http.StatusOK, got.StatusCode)
		assert.Equal(t, "{}", string(got.body))
		assert.Equal(t, "application/json", got.Header.Get("Content-Type"))
		assert.Equal(t, "registry/2.0", got.Header.Get("Docker-Distribution-Api-Version"))
		got = c.do(http.MethodHead, path)
		assert.Equal(t, http.StatusOK, got.StatusCode)
		assert.Empty(t, got.body)
	}
}

// Whether it works is for everybody to know, and nothing else is.
func TestHealth(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a")
	file := s.open("image.tar")
	defer file.Close()
	refuseAll := func(*http.Request, string) error { return ErrUnauthorized }
	c := connectWith(s, Options{Authorize: refuseAll, Prefix: "/cache"})
	single := &client{t: t, host: serve(t, NewSingle(file, "own", "t", &Options{Authorize: refuseAll, Prefix: "/cache"}))}
	for _, c := range []*client{c, single} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			got := c.do(method, "/cache/healthz")
			assert.Equal(t, http.StatusOK, got.StatusCode)
			assert.Equal(t, "text/plain; charset=utf-8", got.Header.Get("Content-Type"))
			assert.Equal(t, map[string]string{http.MethodGet: "ok\n"}[method], string(got.body))
		}
		requireRefusal(t, c.do(http.MethodPost, "/cache/healthz"), http.StatusMethodNotAllowed, "UNSUPPORTED")
		c.requireRefused(http.StatusNotFound, "UNSUPPORTED", "/healthz")
		c.requireRefused(http.StatusUnauthorized, "UNAUTHORIZED", "/cache/v2/")
	}
	require.NoError(t, os.RemoveAll(s.dir.Path()))
	c.requireRefused(http.StatusServiceUnavailable, "UNAVAILABLE", "/cache/healthz")
	require.Len(t, c.reported.take(), 1)
	assert.Equal(t, http.StatusOK, single.get("/cache/healthz").StatusCode, "that is open")
}

// Look fails now, rather than at a request, and counts what is served.
func TestLook(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a")
	s.stock("other", testRef, "b")
	s.write("old.tar", []byte("of another tool"))
	var reported failures
	h := New(s.dir, &Options{Failed: reported.add})
	for range 2 {
		n, err := h.Look(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 2, n)
	}
	all := reported.take()
	require.Len(t, all, 1, "once")
	assert.ErrorContains(t, all[0], "old.tar: not a tarball of this cache")
	require.NoError(t, os.RemoveAll(s.dir.Path()))
	_, err := h.Look(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	n, err := New(nil, nil).Look(t.Context())
	require.NoError(t, err)
	assert.Zero(t, n)
}

// pull pulls an image as a client does, and verifies all of it.
func pull(t *testing.T, ref string, opts ...remote.Option) (v1.Image, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	img, err := remote.Image(parsed, append(opts, remote.WithContext(t.Context()))...)
	if err != nil {
		return nil, err
	}
	return img, validate.Image(img)
}

// A client that others have written pulls, and lists.
func TestClientPulls(t *testing.T) {
	s := newShelf(t)
	s.stock("debian", "debian:12", "a")
	file := s.stock("image", testRef, "a", "large", "b")
	s.stock("next", "registry.test/team/image:v2", "a", "c")
	c := connect(s)
	digest := file.Image.Digest()
	for _, ref := range []string{"/registry.test/team/image:v1", "/registry.test/team/image@" + digest.String()} {
		img, err := pull(t, c.host+ref)
		require.NoError(t, err, ref)
		got, err := img.Digest()
		require.NoError(t, err)
		assert.Equal(t, digest, got)
	}
	_, err := pull(t, c.host+"/docker.io/library/debian:12")
	require.NoError(t, err)

	r, err := name.NewRegistry(c.host)
	require.NoError(t, err)
	for _, size := range []int{1, 100} {
		names, err := remote.Catalog(t.Context(), r, remote.WithPageSize(size))
		require.NoError(t, err)
		assert.Equal(t, []string{"docker.io/library/debian", "registry.test/team/image"}, names)
		tags, err := remote.List(r.Repo("registry.test", "team", "image"), remote.WithPageSize(size))
		require.NoError(t, err)
		assert.Equal(t, []string{"v1", "v2"}, tags)
	}
	assert.Empty(t, c.reported.take())
}

// Tarballs are replaced while many pull: each pull is whole.
func TestClientsPullWhileTarballsAreReplaced(t *testing.T) {
	const clients, tarballs, times = 16, 4, 5
	s := newShelf(t)
	ref := func(i int) string { return fmt.Sprintf("registry.test/team/image:v%d", i) }
	write := func(i, n int) { s.stock(fmt.Sprintf("image%d", i), ref(i), "base", fmt.Sprintf("own%d.%d", i, n)) }
	for i := range tarballs {
		write(i, 0)
	}
	c := connect(s)
	ended := make(chan struct{})
	var group errgroup.Group
	for n := range clients {
		group.Go(func() error {
			for {
				last := false
				select {
				case <-ended:
					last = true // nothing changes any more
				default:
				}
				_, err := pull(t, c.host+"/"+ref(n%tarballs))
				if last || err != nil {
					return err
				}
			}
		})
	}
	for n := range times {
		for i := range tarballs {
			write(i, n+1)
		}
	}
	close(ended)
	require.NoError(t, group.Wait())
	assert.Empty(t, c.reported.take())
}

// One image: only a client that knows its tag or digest gets it, and there are no lists.
func TestNewSingle(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a", "b")
	s.stock("other", "registry.test/team/image:v2", "c")
	s.age("image.tar", 1)
	s.unmark("image.tar")
	file := s.open("image.tar")
	c := &client{t: t, reported: &failures{}}
	c.host = serve(t, NewSingle(file, "own", "t-0123", &Options{Failed: c.reported.add}))
	img, err := pull(t, c.host+"/own:t-0123")
	require.NoError(t, err)
	digest, err := img.Digest()
	require.NoError(t, err)
	assert.Equal(t, file.Image.Digest(), digest)
	_, err = pull(t, c.host+"/own@"+digest.String())
	require.NoError(t, err)
	c.requireImage(file, "own", "t-0123?ns=any.test")

	for _, path := range []string{"/v2/_catalog", "/v2/own/tags/list", "/v2/registry.test/team/image/tags/list"} {
		c.requireRefused(http.StatusNotFound, "UNSUPPORTED", path)
	}
	for _, ref := range []string{"v1", "latest", "list", absent} {
		message := c.requireRefused(http.StatusNotFound, "MANIFEST_UNKNOWN", "/v2/own/manifests/"+ref)
		assert.NotContains(t, message, "t-0123")
	}
	for _, repository := range []string{"team/image", "registry.test/team/image", "registry.test/own"} {
		c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/"+repository+"/manifests/v1")
		c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/"+repository+"/manifests/t-0123")
	}
	other, _ := layerOf(t, "c")
	c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/own/blobs/"+other)
	_, err = os.Stat(s.path(".image.tar.mark"))
	require.ErrorIs(t, err, os.ErrNotExist, "it is no pull from the directory")

	// It is the tarball that was opened, whatever has its name now.
	d, _ := layerOf(t, "d")
	for _, replace := range []func(){func() { s.stock("image", testRef, "a", "d") }, func() { require.NoError(t, os.Remove(file.Name())) }} {
		replace()
		_, err = pull(t, c.host+"/own:t-0123")
		require.NoError(t, err)
		c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/own/blobs/"+d)
	}
	assert.Empty(t, c.reported.take())
	require.NoError(t, file.Close())
	a, _ := layerOf(t, "a")
	require.ErrorIs(t, c.get("/v2/own/blobs/"+a).err, io.ErrUnexpectedEOF)
	all := c.reported.take()
	require.Len(t, all, 1, "a pull that is under way fails for it")
	require.ErrorIs(t, all[0], os.ErrClosed)
}

// The log has each request, and what could not be read; it is silent without options.
func TestLogger(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a")
	log := &logged{}
	c := &client{t: t, host: serve(t, New(s.dir, &Options{Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}))}
	a, raw := layerOf(t, "a")
	c.get("/v2/registry.test/team/image/blobs/"+a, "Range: bytes=3-4")
	assert.Contains(t, log.String(), "method=GET url=/v2/registry.test/team/image/blobs/"+a+" range=\"bytes=3-4\"")
	assert.NotContains(t, log.String(), "cannot read")
	require.NoError(t, os.RemoveAll(s.dir.Path()))
	c.get("/v2/_catalog")
	assert.Contains(t, log.String(), `msg="cannot read" url=/v2/_catalog error=`)

	s = newShelf(t)
	s.stock("image", testRef, "a")
	c = &client{t: t, host: serve(t, New(s.dir, nil))}
	c.requireServed(raw, "/v2/registry.test/team/image/blobs/"+a)
	require.NoError(t, os.RemoveAll(s.dir.Path()))
	c.requireRefused(http.StatusInternalServerError, "UNKNOWN", "/v2/_catalog")
}

// Below a prefix there is the whole API, with links that lead on, and nothing beside it.
func TestPrefix(t *testing.T) {
	s := newShelf(t)
	for i, tag := range []string{"v1", "v2", "v3"} {
		s.stock(fmt.Sprintf("image%d", i), "registry.test/team/image:"+tag, "a")
	}
	a, raw := layerOf(t, "a")
	for _, prefix := range []string{"/cache", "/cache/", "cache", "/deep/ä/v2"} {
		path := "/" + strings.Trim(prefix, "/")
		below := (&url.URL{Path: path}).EscapedPath()
		mux := http.NewServeMux()
		c := &client{t: t, reported: &failures{}}
		mux.Handle(path+"/", New(s.dir, &Options{Prefix: prefix, Failed: c.reported.add}))
		mux.Handle("/", New(s.dir, &Options{Prefix: "/elsewhere"}))
		c.host = serve(t, mux)
		assert.Equal(t, "{}", string(c.get(below+"/v2/").body))
		assert.Equal(t, http.StatusOK, c.get(below+"/v2/registry.test/team/image/manifests/v1").StatusCode)
		c.requireServed(raw, below+"/v2/registry.test/team/image/blobs/"+a)
		for _, list := range []string{below + "/v2/registry.test/team/image/tags/list", below + "/v2/_catalog"} {
			got := c.get(list + "?n=1")
			require.Equal(t, http.StatusOK, got.StatusCode)
			if strings.HasSuffix(list, "tags/list") {
				require.True(t, strings.HasPrefix(nextOf(t, got), list+"?"), nextOf(t, got))
				assert.Equal(t, []string{`["v1"]`, `["v2"]`, `["v3"]`}, c.list(list+"?n=1", "tags"))
			}
		}
		for _, outside := range []string{
			"/v2/", "/v2/_catalog", "/v2/registry.test/team/image/manifests/v1", "/v2/registry.test/team/image/blobs/" + a, below + "/", below + "/team/image/manifests/v1",
			below + "x/v2/", below + "/v2x/", "/x" + below + "/v2/", below + below + "/v2/registry.test/team/image/manifests/v1",
		} {
			c.requireRefused(http.StatusNotFound, "UNSUPPORTED", outside)
		}
		assert.Empty(t, c.reported.take())
	}
	h := New(s.dir, &Options{Prefix: "/cache"})
	for _, outside := range []string{"/v2/_catalog", "/v2/registry.test/team/image/manifests/v1", "/cache", "/", "/cachev2/", "/cache/../v2/", "//cache/v2/"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path = outside // as it is, without a mux that cleans it
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		assert.Equal(t, http.StatusNotFound, w.Code, outside)
	}
}

// Authorize is asked before anything is answered, about the repository in the path.
func TestAuthorize(t *testing.T) {
	s := newShelf(t)
	file := s.stock("image", testRef, "a")
	a, raw := layerOf(t, "a")
	const secret = "the reason, which is no one else's"
	var mu sync.Mutex
	var asked []string
	var verdict error
	c, log := &client{t: t, reported: &failures{}}, &logged{}
	h := New(s.dir, &Options{Failed: c.reported.add, Logger: slog.New(slog.NewTextHandler(log, nil)), Authorize: func(r *http.Request, repository string) error {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Method+" "+repository)
		return verdict
	}})
	c.host = serve(t, h)
	for path, repository := range map[string]string{
		"/v2": "", "/v2/": "", "/v2/_catalog": "",
		"/v2/team/image/manifests/v1?ns=registry.test":                             "team/image",
		"/v2/registry.test/team/image/manifests/v1":                                "registry.test/team/image",
		"/v2/registry.test/team/image/manifests/" + file.Image.Digest().String():   "registry.test/team/image",
		"/v2/registry.test/team/image/blobs/" + a:                                  "registry.test/team/image",
		"/v2/registry.test/team/image/blobs/" + file.Image.ConfigDigest().String(): "registry.test/team/image",
		"/v2/registry.test/team/image/blobs/" + file.Image.Digest().String():       "registry.test/team/image",
		"/v2/registry.test/team/image/tags/list":                                   "registry.test/team/image",
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			for err, want := range map[error]struct {
				status int
				code   string
			}{
				nil: {http.StatusOK, ""},
				fmt.Errorf("%s: %w", secret, ErrUnauthorized): {http.StatusUnauthorized, "UNAUTHORIZED"},
				errors.New(secret):                            {http.StatusForbidden, "DENIED"},
			} {
				asked, verdict = nil, err
				got := c.do(method, path)
				require.Equal(t, want.status, got.StatusCode, path)
				require.Equal(t, []string{method + " " + repository}, asked, path)
				challenge := ""
				if want.code == "UNAUTHORIZED" {
					challenge = `Basic realm="dockercache"`
				}
				require.Equal(t, challenge, got.Header.Get("WWW-Authenticate"), path)
				if err != nil {
					require.NotContains(t, string(got.body)+fmt.Sprint(got.Header), secret)
					require.Empty(t, got.Header.Get("Docker-Content-Digest"))
				}
				if err != nil && method == http.MethodGet {
					requireRefusal(t, got, want.status, want.code)
				}
			}
		}
	}
	assert.Contains(t, log.String(), secret)
	assert.Empty(t, c.reported.take(), "none of it is the directory's trouble")

	// Nor does a client learn what there is: an unknown repository, tag or blob is refused alike.
	verdict = ErrUnauthorized
	for _, path := range []string{"/v2/registry.test/team/none/manifests/v1", "/v2/registry.test/team/image/manifests/none", "/v2/registry.test/team/image/blobs/" + absent, "/v2/registry.test/team/image/blobs/bad", "/v2/registry.test/team/none/tags/list"} {
		c.requireRefused(http.StatusUnauthorized, "UNAUTHORIZED", path)
	}
	verdict = nil
	c.requireServed(raw, "/v2/registry.test/team/image/blobs/"+a)

	own := `Bearer realm="https://auth.test/token"`
	for _, h := range []http.Handler{
		New(s.dir, &Options{Challenge: own, Authorize: func(*http.Request, string) error { return ErrUnauthorized }}),
		NewSingle(file, "own", "t", &Options{Challenge: own, Authorize: func(*http.Request, string) error { return ErrUnauthorized }}),
	} {
		c := &client{t: t, host: serve(t, h)}
		for _, path := range []string{"/v2/", "/v2/own/manifests/t", "/v2/own/blobs/" + a} {
			assert.Equal(t, own, c.get(path).Header.Get("WWW-Authenticate"))
			c.requireRefused(http.StatusUnauthorized, "UNAUTHORIZED", path)
		}
	}
}

// A client that others have written pulls with a password, and only what it may.
func TestClientPullsWithPassword(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a", "b")
	s.stock("other", "registry.test/other/image:v1", "a")
	isUser := BasicAuth(func(user, password string) bool { return user == "ci" && password == "right" })
	host := serve(t, New(s.dir, &Options{Authorize: func(r *http.Request, repository string) error {
		if err := isUser(r, repository); err != nil {
			return err
		}
		if repository != "" && repository != "registry.test/team/image" {
			return errors.New("not yours")
		}
		return nil
	}}))
	as := func(password string) remote.Option {
		return remote.WithAuth(&authn.Basic{Username: "ci", Password: password})
	}
	_, err := pull(t, host+"/registry.test/team/image:v1", as("right"))
	require.NoError(t, err)
	for status, try := range map[int]func() error{
		http.StatusUnauthorized: func() error { _, err := pull(t, host+"/registry.test/team/image:v1", as("wrong")); return err },
		http.StatusForbidden:    func() error { _, err := pull(t, host+"/registry.test/other/image:v1", as("right")); return err },
	} {
		var answer *transport.Error
		require.ErrorAs(t, try(), &answer)
		assert.Equal(t, status, answer.StatusCode)
	}
	_, err = pull(t, host+"/registry.test/team/image:v1")
	require.Error(t, err)
	_, err = pull(t, serve(t, New(s.dir, &Options{Authorize: BasicAuth(nil)}))+"/team/image:v1", as("right"))
	var answer *transport.Error
	require.ErrorAs(t, err, &answer, "without a check there is no access")
	assert.Equal(t, http.StatusUnauthorized, answer.StatusCode)
}

// A handler of nothing serves nothing.
func TestNil(t *testing.T) {
	for _, h := range []http.Handler{New(nil, nil), NewSingle(nil, "own", "t", nil)} {
		c := &client{t: t, host: serve(t, h)}
		assert.Equal(t, http.StatusOK, c.get("/v2/").StatusCode)
		c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/own/manifests/t")
		c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/own/blobs/"+absent)
	}
}

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
