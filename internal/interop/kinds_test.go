package interop

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagetest"
)

// emptyLayer is a layer with nothing in it.
func emptyLayer(t *testing.T) v1.Layer {
	t.Helper()
	var raw, packed bytes.Buffer
	require.NoError(t, tar.NewWriter(&raw).Close())
	z := gzip.NewWriter(&packed)
	_, err := z.Write(raw.Bytes())
	require.NoError(t, err)
	require.NoError(t, z.Close())
	l, err := imagetest.Blob(packed.Bytes(), sum(raw.Bytes()), types.DockerLayer)
	require.NoError(t, err)
	return l
}

func sum(content []byte) v1.Hash {
	s := sha256.Sum256(content)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(s[:])}
}

// Images with nothing in them are whole when they are there.
func TestLoadEmptyImages(t *testing.T) {
	onAll(t, func(t *testing.T, e engine) {
		s := newStore(t)
		for name, layers := range map[string][]v1.Layer{
			"none":  {},
			"empty": {emptyLayer(t)},
			"twice": {emptyLayer(t), emptyLayer(t)},
		} {
			stocked := s.stockLayers(name+"_main.tar", "team/image:"+name, layers...)
			for _, want := range [][]loader.Outcome{{loader.Loaded, loader.Delta}, {loader.Present}} {
				result, err := loader.Load(t.Context(), e, stocked, s.options())
				require.NoError(t, err, name)
				assert.Contains(t, want, result.Outcome, name)
			}
			id, state, err := e.Find(t.Context(), stocked.Image.Reference())
			require.NoError(t, err)
			assert.NotEqual(t, loader.Incomplete, state)
			assert.Contains(t, []v1.Hash{stocked.Image.Digest(), stocked.Image.ConfigDigest()}, id, name)
		}
	})
}

// A layer of no bytes at all, not even those of an empty archive, is one that engines
// unpack, or refuse. If they do, what had the reference keeps it.
func TestLoadALayerOfNoBytes(t *testing.T) {
	onAll(t, func(t *testing.T, e engine) {
		s := newStore(t)
		before := s.stock("before_main.tar", "team/image:a-1", "zero")
		requireLoad(t, e, s, before, loader.Loaded)
		none, err := imagetest.Blob(nil, sum(nil), types.DockerUncompressedLayer)
		require.NoError(t, err)
		stocked := s.stockLayers("a_main.tar", "team/image:a-1", none)
		if _, err := loader.Load(t.Context(), e, stocked, s.options()); err != nil {
			t.Log(err)
			requireLoad(t, e, s, before, loader.Present)
			return
		}
		result, err := loader.Load(t.Context(), e, stocked, s.options())
		require.NoError(t, err)
		assert.Equal(t, loader.Present, result.Outcome)
	})
}

// Layers in zstd are loaded, or it is said before anything is sent that the engine is too
// old for them: which is so is what the engine itself does with them.
func TestLoadZstd(t *testing.T) {
	const dockerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	onAll(t, func(t *testing.T, e engine) {
		for name, mediaType := range map[string]types.MediaType{"oci": types.OCILayerZStd, "docker": dockerZstd, "gzip": types.DockerLayer} {
			s := newStore(t)
			base, err := imagetest.Layer(s.id+"base", 1<<20)
			require.NoError(t, err)
			top, err := imagetest.ZstdLayer(s.id+"top", 1<<20, mediaType)
			require.NoError(t, err)
			stocked := s.stockLayers("a_main.tar", "team/image:a-1", base, top)
			refuses := e.ReadsZstd(t.Context(), mediaType)
			result, err := loader.Load(t.Context(), e, stocked, s.options())
			if refuses == nil {
				require.NoError(t, err, name)
				assert.Equal(t, loader.Loaded, result.Outcome, name)
				e.remove(t, stocked.Image.Reference())
				continue
			}
			require.ErrorIs(t, err, loader.ErrUnsupported, name)
			assert.Zero(t, result.Streamed, name)
			t.Log(err)
			// Without that it fails late, and says less.
			result, err = loader.Load(t.Context(), unchecked{e.Engine}, stocked, s.options())
			require.Error(t, err, name)
			t.Log(err)
			assert.NotZero(t, result.Streamed, name)
		}
	})
}

// unchecked is an engine that is not asked what it reads.
type unchecked struct{ loader.Engine }

// A layer in zstd that the engine already has, in gzip, need not be sent.
func TestLoadZstdThatIsThere(t *testing.T) {
	onEngines(t, func(t *testing.T, e engine) {
		if e.ReadsZstd(t.Context(), types.OCILayerZStd) == nil || e.byBlob {
			return
		}
		s := newStore(t)
		requireLoad(t, e, s, s.stock("a_main.tar", "team/image:a-1", "one"), loader.Loaded)
		one, err := imagetest.ZstdLayer(s.id+"one", 1<<20, types.OCILayerZStd)
		require.NoError(t, err)
		two, err := imagetest.Layer(s.id+"two", 1<<20)
		require.NoError(t, err)
		stocked := s.stockLayers("b_main.tar", "team/image:b-1", one, two)
		result, err := loader.Load(t.Context(), e, stocked, s.options())
		require.NoError(t, err)
		assert.Equal(t, loader.Delta, result.Outcome)
		assert.Contains(t, e.files(t, stocked.Image.Reference()), "opt/"+s.id+"one/name")
	})
}

// ociIfZstd gives an image OCI's media types where it has a layer that only OCI has.
func ociIfZstd(image v1.Image, layers []v1.Layer) (v1.Image, error) {
	for _, l := range layers {
		if mediaType, err := l.MediaType(); err != nil || mediaType != types.OCILayerZStd {
			continue
		}
		return mutate.MediaType(mutate.ConfigMediaType(image, types.OCIConfigJSON), types.OCIManifestSchema1), nil
	}
	return image, nil
}

// stockLayers makes an image of these layers, and its tarball.
func (s *store) stockLayers(name, repository string, layers ...v1.Layer) *tarball.Tarball {
	s.t.Helper()
	image, err := imagetest.Image(layers...)
	require.NoError(s.t, err)
	image, err = ociIfZstd(image, layers)
	require.NoError(s.t, err)
	made, source, err := tarball.FromV1("registry.example/"+repository, image)
	require.NoError(s.t, err)
	_, err = s.dir.Put(context.WithoutCancel(s.t.Context()), name, made, source, nil)
	require.NoError(s.t, err)
	stocked, err := s.dir.Get(s.t.Context(), name)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = stocked.Close() })
	return stocked
}
