package interop

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/internal/testtool"
)

// requireFilled verifies that only serve-cache has asked the hub for layers, and returns the
// names of the tarballs.
func (m *mirrored) requireFilled() (tarballs []string) {
	m.t.Helper()
	asked := false
	for _, r := range m.hub.Requests() {
		if strings.Contains(r.Path, "/blobs/") {
			asked = true
			assert.Contains(m.t, r.Header.Get("User-Agent"), "dockercache", r.Path)
		}
	}
	assert.True(m.t, asked)
	tarballs, err := filepath.Glob(filepath.Join(m.dir.Path(), "*.tar"))
	require.NoError(m.t, err)
	return tarballs
}

// An image that is not stocked reaches engines through the mirror, which fetches it.
func TestMirrorsFill(t *testing.T) {
	const first = "library/debian:first"
	for _, c := range mirrorEngines {
		t.Run(c.name, func(t *testing.T) {
			m := newMirrored(t, append([]string{"-fill", "docker.io/library/*"}, c.serve...)...)
			m.push(first)
			e := c.connect(t, m)
			require.NoError(t, e.pull(t, "docker.io/"+first))
			layer := m.layer(first, own)
			assert.Equal(t, layer+"\n", e.files(t, "docker.io/"+first)["opt/"+layer+"/name"])
			assert.Len(t, m.requireFilled(), 1)
		})
	}
}

// From a real registry, for engines that can have a mirror of any.
func TestServeFillsFromARegistry(t *testing.T) {
	upstream := startRegistry(t)
	s := newStore(t)
	layer, err := imagetest.Layer(s.id+"filled", 1<<20)
	require.NoError(t, err)
	image, err := imagetest.Image(layer)
	require.NoError(t, err)
	ref, err := name.NewTag(upstream + "/team/image:a-1")
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, image))
	host := startServe(t, s.dir.Path(), "-registry", upstream, "-fill", upstream+"/team/*")
	t.Run("containerd", func(t *testing.T) {
		e := connectContainerd(t, containerd)
		hosts := containerdMirror(t, upstream, "registry.invalid", host, "")
		run(t, "ctr", "--address", e.socket, "images", "pull", "--hosts-dir", hosts, ref.Name())
		assert.NotEmpty(t, e.files(t, ref.Name()))
	})
	t.Run("podman", func(t *testing.T) {
		testtool.Need(t, "podman")
		conf := filepath.Join(t.TempDir(), "registries.conf")
		podmanMirror(t, conf, upstream, host)
		e := connect(t, podman)
		t.Setenv("CONTAINERS_REGISTRIES_CONF", conf)
		run(t, "podman", append(podmanAt(filepath.Dir(e.socket)), "pull", "-q", ref.Name())...)
		assert.NotEmpty(t, e.files(t, ref.Name()))
	})
}
