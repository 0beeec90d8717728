package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache/history"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// running is a serve-cache in this process.
type running struct {
	t      *testing.T
	host   string // HOST:PORT
	url    string
	stderr *bytes.Buffer // to be read after end
	cancel context.CancelFunc
	code   chan int
}

// run runs the program until the test ends.
func run(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	p := &running{t: t, stderr: &bytes.Buffer{}, cancel: cancel, code: make(chan int, 1)}
	go func() {
		p.code <- program.Run(ctx, append([]string{"-addr", "127.0.0.1:0"}, args...), w, p.stderr)
		_ = w.Close()
	}()
	t.Cleanup(func() { cancel(); p.end() })
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		p.end()
		t.Fatal(line, p.stderr.String())
	}
	_, url, _ := strings.Cut(strings.TrimSpace(line), " at ")
	p.url = url
	_, p.host, _ = strings.Cut(url, "://")
	return p
}

// end ends the program, and returns what it has printed to standard error.
func (p *running) end() string {
	p.cancel()
	if p.code != nil {
		<-p.code
		p.code = nil
	}
	return p.stderr.String()
}

// pull pulls REPOSITORY:TAG, and verifies all of it.
func (p *running) pull(ref string, options ...remote.Option) (v1.Image, error) {
	parsed, err := name.ParseReference(p.host + "/" + ref)
	require.NoError(p.t, err)
	image, err := remote.Image(parsed, append(options, remote.WithContext(p.t.Context()))...)
	if err != nil {
		return nil, err
	}
	return image, validate.Image(image)
}

// settle waits until nothing is being fetched: clients have all of an image before it has
// its name.
func (p *running) settle() {
	for isRunning := true; isRunning; {
		_, metrics := p.get("/metrics")
		isRunning = !strings.Contains(metrics, "dockercache_fills_running 0\n")
	}
}

// get returns the answer for a path.
func (p *running) get(path string) (status int, body string) {
	got, err := http.Get(p.url + path)
	require.NoError(p.t, err)
	defer got.Body.Close()
	content, err := io.ReadAll(got.Body)
	require.NoError(p.t, err)
	return got.StatusCode, string(content)
}

// pushIndex makes a reference of a registry that is an index of images for platforms, each
// of a layer of some bytes.
func pushIndex(t *testing.T, s *registrytest.Server, ref string, size int, architectures ...string) {
	t.Helper()
	var index v1.ImageIndex = empty.Index
	for _, architecture := range architectures {
		layer, err := imagetest.Layer(architecture, size)
		require.NoError(t, err)
		image, err := imagetest.Image(layer)
		require.NoError(t, err)
		config, err := image.ConfigFile()
		require.NoError(t, err)
		config = config.DeepCopy()
		config.Architecture = architecture
		image, err = mutate.ConfigFile(image, config)
		require.NoError(t, err)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}}})
	}
	_, err := s.PushIndex(ref, index)
	require.NoError(t, err)
}

// sent returns how many bytes of layers a registry has sent.
func sent(s *registrytest.Server) (n int64) {
	for _, r := range s.Requests() {
		n += r.Sent
	}
	return n
}

func tarballs(t *testing.T, dir string) (names []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	require.NoError(t, err)
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	return names
}

func platform(architecture string) remote.Option {
	return remote.WithPlatform(v1.Platform{OS: "linux", Architecture: architecture})
}

// What is not stocked is fetched, also for several platforms, and served from then on.
func TestFill(t *testing.T) {
	hub, dir := registrytest.New(t), t.TempDir()
	pushIndex(t, hub, "team/image:v1-1", 100_000, "amd64", "arm64")
	p := run(t, "-dir", dir, "-registry", hub.Host(), "-fill", hub.Host()+"/team/*")
	var group errgroup.Group
	for range 13 {
		group.Go(func() error { _, err := p.pull("team/image:v1-1", platform("amd64")); return err })
	}
	require.NoError(t, group.Wait())
	_, err := p.pull("team/image:v1-1", platform("arm64"))
	require.NoError(t, err)
	_, err = p.pull("team/image:v1-1", platform("s390x"))
	require.Error(t, err, "the index has none")
	p.settle()
	host := strings.ReplaceAll(hub.Host(), ":", "@")
	assert.Equal(t, []string{host + "+team+image@v1-1@linux+amd64.tar", host + "+team+image@v1-1@linux+arm64.tar"}, tarballs(t, dir))
	manifests := map[string]int{}
	for _, r := range hub.Requests() {
		manifests[r.Path]++
	}
	assert.Equal(t, 1, manifests["/v2/team/image/manifests/v1-1"])
	assert.Empty(t, p.end())
	records, _, err := history.Read(dir, time.Time{})
	require.NoError(t, err)
	require.Len(t, records, 2, "one for each image, however many have asked")
	for _, r := range records {
		assert.Equal(t, history.Fill, r.Kind)
		assert.Equal(t, "stocked", r.Outcome)
		assert.Contains(t, r.Phases, timing.Resolve)
		assert.Contains(t, r.Phases, timing.Publish)
		assert.NotEmpty(t, r.Origins)
	}

	hub.Close()
	p = run(t, "-dir", dir, "-registry", hub.Host())
	for _, architecture := range []string{"amd64", "arm64"} {
		_, err := p.pull("team/image:v1-1", platform(architecture))
		require.NoError(t, err)
	}
}

// Images without an index, by tag and by digest, are stocked as well.
func TestFillWithoutAnIndex(t *testing.T) {
	hub, dir := registrytest.New(t), t.TempDir()
	push := func(ref, layer string) string {
		l, err := imagetest.Layer(layer, 3000)
		require.NoError(t, err)
		image, err := imagetest.Image(l)
		require.NoError(t, err)
		_, err = hub.Push(ref, image)
		require.NoError(t, err)
		digest, err := image.Digest()
		require.NoError(t, err)
		return digest.String()
	}
	push("team/image:v1", "a")
	pinned := push("team/image:v2", "b")
	push("other/image:v1", "c")
	p := run(t, "-dir", dir, "-registry", hub.Host(), "-fill", hub.Host()+"/team/image")
	_, err := p.pull("team/image:v1")
	require.NoError(t, err)
	_, err = p.pull("team/image@" + pinned)
	require.NoError(t, err)
	p.settle()
	assert.Len(t, tarballs(t, dir), 2)
	before := len(hub.Requests())
	_, err = p.pull("other/image:v1")
	require.Error(t, err)
	assert.Len(t, hub.Requests(), before, "it is not allowed, so the registry is not asked")
	assert.Empty(t, p.end())
	p = run(t, "-dir", dir, "-registry", hub.Host())
	_, err = p.pull("team/image@" + pinned)
	require.NoError(t, err)
}

// A client's password is for this program alone, and each registry gets its own credential.
func TestFillCredentials(t *testing.T) {
	for _, name := range []string{"GITHUB_TOKEN", "GH_TOKEN", "DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE"} {
		t.Setenv(name, "")
	}
	private, public := registrytest.New(t), registrytest.New(t)
	private.SetQuirks(registrytest.Quirks{User: "user", Password: "registry-password"})
	config := t.TempDir()
	login := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, private.Host(), base64.StdEncoding.EncodeToString([]byte("user:registry-password")))
	require.NoError(t, os.WriteFile(filepath.Join(config, "config.json"), []byte(login), 0o600))
	t.Setenv("DOCKER_CONFIG", config)
	t.Setenv("HOME", config)
	passwords := filepath.Join(config, "passwords")
	require.NoError(t, os.WriteFile(passwords, []byte("# nodes\nnode:node-password\n"), 0o600))
	for _, hub := range []*registrytest.Server{private, public} {
		pushIndex(t, hub, "team/image:v1", 3000, "amd64")
		p := run(t, "-dir", t.TempDir(), "-registry", hub.Host(), "-fill", private.Host()+"/*,"+public.Host()+"/*", "-password-file", passwords)
		_, err := p.pull("team/image:v1", platform("amd64"))
		require.ErrorContains(t, err, "UNAUTHORIZED")
		assert.Empty(t, hub.Requests())
		_, err = p.pull("team/image:v1", platform("amd64"), remote.WithAuth(&authn.Basic{Username: "node", Password: "node-password"}))
		require.NoError(t, err)
		log := p.end()
		assert.NotContains(t, log, "node-password")
		assert.NotContains(t, log, "registry-password")
		for _, r := range hub.Requests() {
			user, password, sent := (&http.Request{Header: r.Header}).BasicAuth()
			if sent {
				assert.Equal(t, "user registry-password", user+" "+password)
				assert.Same(t, private, hub)
			}
		}
	}
}

// What a registry refuses is not found, so that a client asks it itself; what it cannot do
// now is another error; later it is tried again.
func TestFillRefused(t *testing.T) {
	hub, dir := registrytest.New(t), t.TempDir()
	pushIndex(t, hub, "team/image:v1", 3000, "amd64")
	p := run(t, "-dir", dir, "-registry", hub.Host(), "-fill", hub.Host()+"/team/*")
	for quirks, want := range map[*registrytest.Quirks]int{
		{User: "user", Password: "password"}: http.StatusNotFound,
		{Status: http.StatusForbidden}:       http.StatusNotFound,
		{Status: http.StatusTeapot}:          http.StatusBadGateway,
	} {
		hub.SetQuirks(*quirks)
		status, _ := p.get("/v2/team/image/manifests/v1")
		assert.Equal(t, want, status, "%+v", quirks)
	}
	hub.SetQuirks(registrytest.Quirks{})
	status, _ := p.get("/v2/team/image/manifests/v2")
	assert.Equal(t, http.StatusNotFound, status)
	hub.SetQuirks(registrytest.Quirks{Status: http.StatusTooManyRequests, StatusCount: 1})
	_, err := p.pull("team/image:v1", platform("amd64"))
	require.NoError(t, err)
	log := p.end()
	assert.Contains(t, log, `level=WARN msg="an image was not fetched"`)
	assert.NotContains(t, log, "level=ERROR")
}

// Without space for it an image is not promised.
func TestFillWithoutSpace(t *testing.T) {
	hub, dir := registrytest.New(t), t.TempDir()
	pushIndex(t, hub, "team/image:v1", 1<<20, "amd64")
	p := run(t, "-dir", dir, "-registry", hub.Host(), "-fill", hub.Host()+"/team/*", "-quota", "100KiB")
	_, err := p.pull("team/image:v1", platform("amd64"), remote.WithRetryStatusCodes())
	require.ErrorContains(t, err, "UNAVAILABLE")
	assert.Empty(t, tarballs(t, dir))
	assert.Less(t, sent(hub), int64(1000), "the config, and no layer")
	assert.Contains(t, p.end(), "quota")
}

// Two programs that serve one directory fetch an image once.
func TestFillTwoPrograms(t *testing.T) {
	hub, dir := registrytest.New(t), t.TempDir()
	const size = 3 << 20
	pushIndex(t, hub, "team/image:v1", size, "amd64")
	var group errgroup.Group
	var programs []*running
	for range 2 {
		p := run(t, "-dir", dir, "-registry", hub.Host(), "-fill", hub.Host()+"/team/*")
		programs = append(programs, p)
		for range 3 {
			group.Go(func() error { _, err := p.pull("team/image:v1", platform("amd64")); return err })
		}
	}
	require.NoError(t, group.Wait())
	for _, p := range programs {
		p.settle()
	}
	assert.Less(t, sent(hub), int64(size*3/2))
	assert.Len(t, tarballs(t, dir), 1)
}

// A signal in the middle ends it in order, and the next one goes on where it was.
func TestFillInterrupted(t *testing.T) {
	hub, dir := registrytest.New(t), t.TempDir()
	pushIndex(t, hub, "team/image:v1", 6<<20, "amd64")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // ends a test that would hang
	defer cancel()
	stalled := make(chan struct{}, 100)
	hub.SetQuirks(registrytest.Quirks{Stall: true, Stalled: stalled})
	args := []string{"-dir", dir, "-addr", "127.0.0.1:0", "-registry", hub.Host(), "-fill", hub.Host() + "/team/*"}
	p, err := start(ctx, dir, os.Environ(), args...)
	require.NoError(t, err)
	status, raw := (&running{t: t, url: "http://" + p.address}).get("/v2/team/image/manifests/v1")
	require.Equal(t, http.StatusOK, status)
	var index v1.IndexManifest
	require.NoError(t, json.Unmarshal([]byte(raw), &index))
	status, raw = (&running{t: t, url: "http://" + p.address}).get("/v2/team/image/manifests/" + index.Manifests[0].Digest.String())
	require.Equal(t, http.StatusOK, status)
	var manifest v1.Manifest
	require.NoError(t, json.Unmarshal([]byte(raw), &manifest))
	<-stalled
	failed := make(chan error, 1)
	go func() {
		got, err := http.Get("http://" + p.address + "/v2/team/image/blobs/" + manifest.Layers[0].Digest.String())
		if err == nil {
			_, err = io.Copy(io.Discard, got.Body)
			got.Body.Close()
		}
		failed <- err
	}()
	code, err := p.stop(syscall.SIGTERM)
	require.NoError(t, err)
	assert.Equal(t, cli.Interrupted, code)
	require.Error(t, <-failed)
	assert.Empty(t, tarballs(t, dir))
	assert.NotContains(t, p.stderr.String(), "level=ERROR")

	hub.SetQuirks(registrytest.Quirks{})
	again := run(t, args...)
	_, err = again.pull("team/image:v1", platform("amd64"))
	require.NoError(t, err)
	again.settle()
	assert.Len(t, tarballs(t, dir), 1)
	left, err := filepath.Glob(filepath.Join(dir, ".*.partial*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestRepositories(t *testing.T) {
	var r repositories
	require.NoError(t, r.Set("ghcr.io/owner/*,docker.io/library/debian"))
	require.NoError(t, r.Set("127.0.0.1:5000/*"))
	require.NoError(t, r.Set("docker.io/team/*"))
	for repository, want := range map[string]bool{
		"ghcr.io/owner/image": true, "ghcr.io/owner/a/b": true, "ghcr.io/owner": false, "ghcr.io/owner2/image": false, "ghcr.io.evil/owner/image": false,
		"docker.io/library/debian": true, "docker.io/library/debian2": false, "docker.io/library/debian/x": false, "docker.io/team/x": true,
		"127.0.0.1:5000/x": true, "127.0.0.1:50001/x": false, "127.0.0.1/x": false,
	} {
		assert.Equal(t, want, r.allow(repository), repository)
	}
	for _, bad := range []string{"", "*", "/*", "owner/*", "debian", "docker.io/debian", "index.docker.io/*", "https://ghcr.io/*", "ghcr.io", "ghcr.io/", "ghcr.io/a:tag", "ghcr.io/a*", "ghcr.io/*/a", "ghcr.io/A/*", "ghcr.io/a/*,"} {
		require.ErrorContains(t, new(repositories).Set(bad), "want HOST/REPOSITORY", bad)
	}
}
