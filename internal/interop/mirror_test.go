package interop

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/fakenet"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/internal/testtool"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// mirrored is a fleet: a directory that is served, Docker Hub behind it, and no other
// network. Each reference of the hub is an index of an image for this machine, and of one
// for another architecture.
type mirrored struct {
	*store
	hub   *registrytest.Server
	net   *fakenet.Net
	serve string // HOST:PORT
}

var own, foreign = v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, v1.Platform{OS: "linux", Architecture: map[bool]string{true: "arm64", false: "amd64"}[runtime.GOARCH == "amd64"]}

func newMirrored(t *testing.T, serve ...string) *mirrored {
	t.Helper()
	m := &mirrored{store: newStore(t), hub: registrytest.New(t)}
	var err error
	// The engines take the hub's own name, and ask nobody else.
	m.net, err = fakenet.Start(t.TempDir(), map[string]http.Handler{"registry-1.docker.io": m.hub, "index.docker.io": m.hub})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.net.Close() })
	for _, value := range m.net.Env() {
		name, value, _ := strings.Cut(value, "=")
		t.Setenv(name, value)
	}
	m.serve = startServe(t, m.dir.Path(), serve...)
	return m
}

// push makes a reference of the hub.
func (m *mirrored) push(repositoryTag string) {
	m.t.Helper()
	var index v1.ImageIndex = empty.Index
	for _, p := range []v1.Platform{foreign, own} {
		layer, err := imagetest.Layer(m.layer(repositoryTag, p), 1<<16)
		require.NoError(m.t, err)
		image, err := imagetest.Image(layer)
		require.NoError(m.t, err)
		config, err := image.ConfigFile()
		require.NoError(m.t, err)
		config = config.DeepCopy()
		config.Architecture = p.Architecture
		image, err = mutate.ConfigFile(image, config)
		require.NoError(m.t, err)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &p}})
	}
	_, err := m.hub.PushIndex(repositoryTag, index)
	require.NoError(m.t, err)
}

// layer names the only layer of a reference's image for a platform.
func (m *mirrored) layer(repositoryTag string, p v1.Platform) string {
	return m.id + strings.NewReplacer("/", "-", ":", "-").Replace(repositoryTag) + "-" + p.Architecture
}

// stockFor stocks a reference of the hub for a platform, under a name of any registry.
func (m *mirrored) stockFor(p v1.Platform, host, repositoryTag string) {
	m.t.Helper()
	remote, err := registry.New(nil).Resolve(m.t.Context(), p, m.hub.Host()+"/"+repositoryTag)
	require.NoError(m.t, err)
	name := strings.NewReplacer("/", "-", ":", "-", ".", "-").Replace(host+"-"+repositoryTag) + "-" + p.Architecture + "_main.tar"
	_, err = m.dir.Stock(m.t.Context(), name, host+"/"+repositoryTag, remote, nil)
	require.NoError(m.t, err)
}

// asked returns how many layers the hub was asked for since the last time.
func (m *mirrored) asked(since *int) (n int) {
	requests := m.hub.Requests()
	for _, r := range requests[min(*since, len(requests)):] {
		if strings.Contains(r.Path, "/blobs/") {
			n++
		}
	}
	*since = len(requests)
	return n
}

// A mirrorEngine is an engine that has the served directory as a mirror of Docker Hub, as
// serve-cache's README says.
type mirrorEngine struct {
	engine
	pull   func(t *testing.T, reference string) error
	mirror func(t *testing.T, at string) // makes this the mirror; nil where that needs a restart
}

func failure(_ string, err error) error { return err }

// mirrorEngines are the engines, and whether each asks the hub for an image of an index
// that it has got from the mirror.
var mirrorEngines = []struct {
	name         string
	serve        []string // serve-cache's flags
	fallsThrough bool
	connect      func(t *testing.T, m *mirrored) mirrorEngine
}{
	{"containerd", nil, true, func(t *testing.T, m *mirrored) mirrorEngine { return mirrorContainerd(t, m.serve, "") }},
	{"containerd at a path", nil, true, func(t *testing.T, m *mirrored) mirrorEngine {
		return mirrorContainerd(t, m.serve+"/v2/docker.io", "override_path = true")
	}},
	{"podman", nil, false, mirrorPodman},
	{"docker classic", []string{"-registry", "docker.io"}, true, func(t *testing.T, m *mirrored) mirrorEngine {
		testtool.Need(t, "docker")
		return mirrorDocker(t, m, "dockerd", "")
	}},
	{"new docker classic", []string{"-registry", "docker.io"}, true, func(t *testing.T, m *mirrored) mirrorEngine {
		return mirrorDocker(t, m, newDockerProgram(t), `,"features":{"containerd-snapshotter":false}`)
	}},
	{"new docker containerd", []string{"-registry", "docker.io"}, true, func(t *testing.T, m *mirrored) mirrorEngine {
		return mirrorDocker(t, m, newDockerProgram(t), `,"features":{"containerd-snapshotter":true}`)
	}},
	{"buildkit", nil, true, mirrorBuildkit},
	{"containerd 2", nil, true, mirrorContainerd2},
	{"containerd in Kubernetes", nil, true, func(t *testing.T, m *mirrored) mirrorEngine { return mirrorContainerdCRI(t, m, "containerd1.toml") }},
	{"containerd 2 in Kubernetes", nil, true, func(t *testing.T, m *mirrored) mirrorEngine {
		programs(t, containerdPrograms)
		return mirrorContainerdCRI(t, m, "containerd2.toml")
	}},
	{"cri-o", nil, false, mirrorCRIO},
}

func mirrorContainerd(t *testing.T, at, more string) mirrorEngine {
	e := connectContainerd(t, containerd)
	hosts := containerdMirror(t, "docker.io", "registry-1.docker.io", at, more)
	return mirrorEngine{engine: e, pull: func(t *testing.T, reference string) error {
		return failure(try(t, "ctr", "--address", e.socket, "images", "pull", "--hosts-dir", hosts, reference))
	}}
}

// containerdMirror returns a directory of containerd's configuration in which a registry,
// which is at server, has a mirror. more are further lines.
func containerdMirror(t *testing.T, registry, server, at, more string) (hosts string) {
	hosts = t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(hosts, registry), 0o755))
	writeRecipe(t, filepath.Join(hosts, registry, "hosts.toml"), "hosts.toml", more, "registry-1.docker.io", server, "127.0.0.1:5000", at)
	return hosts
}

// podmanMirror writes podman's configuration in which a registry has a mirror.
func podmanMirror(t *testing.T, conf, registry, at string) {
	writeRecipe(t, conf, "cache.conf", "", "127.0.0.1:5000/docker.io", at, "docker.io", registry)
}

// writeRecipe writes one of serve-cache's recipes to path, with more at its end and some of
// its words replaced.
func writeRecipe(t *testing.T, path, recipe, more string, words ...string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../../examples/serve-cache/recipes", recipe))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte(strings.NewReplacer(words...).Replace(string(content))+more+"\n"), 0o644))
}

func mirrorPodman(t *testing.T, m *mirrored) mirrorEngine {
	testtool.Need(t, "podman")
	conf := filepath.Join(t.TempDir(), "registries.conf")
	mirror := func(t *testing.T, at string) { podmanMirror(t, conf, "docker.io", at) }
	mirror(t, m.serve+"/docker.io")
	e := connect(t, podman)
	t.Setenv("CONTAINERS_REGISTRIES_CONF", conf)
	return mirrorEngine{e, func(t *testing.T, reference string) error {
		return failure(try(t, "podman", append(podmanAt(filepath.Dir(e.socket)), "pull", "-q", reference)...))
	}, mirror}
}

// mirrorDocker starts a Docker Engine of its own: its mirrors are in its configuration.
func mirrorDocker(t *testing.T, m *mirrored, program, more string) mirrorEngine {
	var flags []string
	if !strings.Contains(more, "true") {
		flags = append(flags, "--storage-driver=overlay2")
	}
	d := &daemon{start: func(t *testing.T, d *daemon) string {
		return startDockerd(t, d, program, fmt.Sprintf(`{"registry-mirrors":["http://%s"]%s}`, m.serve, more), flags...)
	}}
	t.Cleanup(func() {
		for _, end := range slices.Backward(d.ends) {
			end()
		}
	})
	e := connect(t, d)
	return mirrorEngine{engine: e, pull: func(t *testing.T, reference string) error {
		return failure(try(t, "docker", "-H", e.address, "pull", "-q", reference))
	}}
}

func TestMirrors(t *testing.T) {
	const stocked, elsewhere, sparse, twice = "library/debian:stocked", "library/debian:elsewhere", "library/debian:sparse", "library/debian:twice"
	const unnamed, whole = "library/debian:unnamed", "library/debian:whole"
	for _, c := range mirrorEngines {
		t.Run(c.name, func(t *testing.T) {
			m := newMirrored(t, c.serve...)
			m.push(stocked)
			m.stockFor(own, "docker.io", stocked)
			m.push(elsewhere)
			m.push(sparse)
			m.stockFor(foreign, "docker.io", sparse)
			m.push(twice)
			m.stockFor(own, "docker.io", twice)
			m.push("library/other:twice") // and newer, the same repository and tag of another registry
			remote, err := registry.New(nil).Resolve(t.Context(), own, m.hub.Host()+"/library/other:twice")
			require.NoError(t, err)
			_, err = m.dir.Stock(t.Context(), "ghcr_main.tar", "ghcr.io/"+twice, remote, nil)
			require.NoError(t, err)
			e := c.connect(t, m)
			since := len(m.hub.Requests())
			requirePull := func(repositoryTag string) {
				t.Helper()
				require.NoError(t, e.pull(t, "docker.io/"+repositoryTag))
				layer := m.layer(repositoryTag, own)
				assert.Equal(t, layer+"\n", e.files(t, "docker.io/"+repositoryTag)["opt/"+layer+"/name"])
			}
			requirePull(stocked)
			assert.Zero(t, m.asked(&since), "from the directory")
			requirePull(twice)
			assert.Zero(t, m.asked(&since), "from the directory")
			requirePull(elsewhere)
			assert.Positive(t, m.asked(&since), "from the hub")
			if c.fallsThrough {
				requirePull(sparse)
				assert.Positive(t, m.asked(&since), "its platform is not stocked")
			} else {
				require.Error(t, e.pull(t, "docker.io/"+sparse), "the README need not mention -platform")
				// It does not say which registry it means.
				m.push(unnamed)
				m.stockFor(own, "docker.io", unnamed)
				e.mirror(t, m.serve)
				since = len(m.hub.Requests())
				requirePull(unnamed)
				assert.Positive(t, m.asked(&since), "it might mean another registry")
				m.serve = startServe(t, m.dir.Path(), append(c.serve, "-platform", own.String()+","+foreign.String())...)
				e.mirror(t, m.serve+"/docker.io")
				requirePull(sparse)
				assert.Positive(t, m.asked(&since), "its platform is not stocked")
				m.push(whole)
				m.stockFor(own, "docker.io", whole)
				m.stockFor(foreign, "docker.io", whole)
				since = len(m.hub.Requests())
				requirePull(whole)
				assert.Zero(t, m.asked(&since), "all platforms are stocked")
			}
			for _, host := range m.net.Refused() {
				t.Log("asked for", host)
			}
		})
	}
}
