package interop

import (
	"encoding/json"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/registry"
)

// stockTyped makes an image of one layer, where the config and the layer have these media
// types, and its tarball.
func (s *store) stockTyped(config, layer types.MediaType) *tarball.Tarball {
	s.t.Helper()
	l, err := imagetest.Layer(s.id+"typed", 1<<20)
	require.NoError(s.t, err)
	image, err := imagetest.Image(l)
	require.NoError(s.t, err)
	_, err = s.server.Push("team/image:plain-1", image)
	require.NoError(s.t, err)
	m, err := image.Manifest()
	require.NoError(s.t, err)
	raw, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: m.MediaType,
		Config: v1.Descriptor{MediaType: config, Digest: m.Config.Digest, Size: m.Config.Size},
		Layers: []v1.Descriptor{{MediaType: layer, Digest: m.Layers[0].Digest, Size: m.Layers[0].Size}},
	})
	require.NoError(s.t, err)
	remote, err := registry.New(nil).Resolve(s.t.Context(), registry.DefaultPlatform(), s.server.PushManifest("team/image:typed-1", raw, m.MediaType))
	require.NoError(s.t, err)
	_, err = s.dir.Stock(s.t.Context(), "typed_main.tar", "registry.example/team/image:typed-1", remote, nil)
	require.NoError(s.t, err)
	stocked, err := s.dir.Get(s.t.Context(), "typed_main.tar")
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = stocked.Close() })
	return stocked
}

// Images with types that the specification does not list are stocked because engines load
// them: any config in every engine. Layers of any type load in Docker's classic store and
// in podman, which look into them; containerd's stores go by the types.
func TestUnlistedTypes(t *testing.T) {
	onEngines(t, func(t *testing.T, e engine) {
		for _, config := range []types.MediaType{"application/octet-stream", "text/html", "", "application/x-unknown"} {
			s := newStore(t)
			requireLoad(t, e, s, s.stockTyped(config, types.DockerLayer), loader.Loaded)
		}
		for _, layer := range []types.MediaType{"application/octet-stream", "application/vnd.docker.image.rootfs.diff.tar.gz", "application/x-gzip", ""} {
			s := newStore(t)
			stocked := s.stockTyped(types.DockerConfigJSON, layer)
			if e.byBlob {
				_, err := loader.Load(t.Context(), e, stocked, s.options())
				require.ErrorIs(t, err, loader.ErrEngine)
				continue
			}
			requireLoad(t, e, s, stocked, loader.Loaded)
		}
	})
}

// skopeo goes by the types in an OCI archive, and not in Docker's.
func TestSkopeoUnlistedTypes(t *testing.T) {
	stocked := newStore(t).stockTyped("application/octet-stream", "application/octet-stream")
	run(t, "skopeo", "--insecure-policy", "copy", "docker-archive:"+stocked.Name(), "dir:"+t.TempDir())
}
