package stocked

import (
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
	"github.com/dockercache/dockercache/tagging"
)

// add returns an index with an image for this machine, and one for another.
func add(t *testing.T, s *registrytest.Server, index v1.ImageIndex) (v1.ImageIndex, v1.Hash) {
	t.Helper()
	layer, err := imagetest.Layer("a", 3000)
	require.NoError(t, err)
	image, err := imagetest.Image(layer)
	require.NoError(t, err)
	_, err = s.Push("team/image:only", image)
	require.NoError(t, err)
	digest, err := image.Digest()
	require.NoError(t, err)
	return mutate.AppendManifests(index,
		mutate.IndexAddendum{Add: empty.Image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "plan9", Architecture: "mips"}}},
		mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}}), digest
}

func digestOf(t *testing.T, index v1.ImageIndex) v1.Hash {
	t.Helper()
	digest, err := index.Digest()
	require.NoError(t, err)
	return digest
}

// An image that is stocked by a reference is found by the same one, and by each other one
// that is pinned to what it was found through.
func TestPinned(t *testing.T) {
	s := registrytest.New(t)
	repository := s.Host() + "/team/image"
	index, manifest := add(t, s, empty.Index)
	_, err := s.PushIndex("team/image:a-1", index)
	require.NoError(t, err)
	raw, err := index.RawManifest()
	require.NoError(t, err)
	s.PushManifest("team/image@"+digestOf(t, index).String(), raw, types.OCIImageIndex)
	nested := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index})
	_, err = s.PushIndex("team/image:nested-1", nested)
	require.NoError(t, err)

	const absent = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	none := v1.Hash{}
	for _, c := range []struct {
		tag            string
		stocked, found []v1.Hash // digests beside the tag; none: without
		not            []string
	}{
		{"a-1", []v1.Hash{none, digestOf(t, index)}, []v1.Hash{none, digestOf(t, index), manifest}, []string{absent, digestOf(t, nested).String()}},
		{"a-1", []v1.Hash{manifest}, []v1.Hash{none, manifest}, []string{absent, digestOf(t, index).String()}},
		{"nested-1", []v1.Hash{none, digestOf(t, nested)}, []v1.Hash{none, digestOf(t, nested), digestOf(t, index), manifest}, []string{absent}},
	} {
		for _, by := range c.stocked {
			pin := func(digest v1.Hash) string {
				if digest == none {
					return repository + ":" + c.tag
				}
				return repository + ":" + c.tag + "@" + digest.String()
			}
			t.Run(strings.TrimPrefix(pin(by), repository), func(t *testing.T) {
				dir, err := cache.Open(t.TempDir(), nil)
				require.NoError(t, err)
				find := func(ref string) (*tarball.Tarball, error) {
					names, err := tagging.Scheme{}.Names(ref, "main", "")
					require.NoError(t, err)
					found, err := Find(t.Context(), dir, ref, names)
					if found != nil {
						t.Cleanup(func() { _ = found.Close() })
					}
					return found, err
				}
				names, err := tagging.Scheme{}.Names(pin(by), "main", "")
				require.NoError(t, err)
				remote, err := registry.New(nil).Resolve(t.Context(), registry.DefaultPlatform(), pin(by))
				require.NoError(t, err)
				_, err = dir.Stock(t.Context(), names.Tarball, names.RepoTag, remote, nil)
				require.NoError(t, err)
				for _, other := range c.found {
					found, err := find(pin(other))
					require.NoError(t, err)
					assert.Equal(t, manifest, found.Image.Digest())
				}
				for _, other := range c.not {
					_, err := find(repository + ":" + c.tag + "@" + other)
					require.ErrorIs(t, err, ErrMissing)
					assert.ErrorContains(t, err, "holds the manifest "+manifest.String())
					if by == manifest {
						assert.ErrorContains(t, err, "and no index: if that is what the digest is of, docker-cache adds it")
					} else {
						assert.ErrorContains(t, err, "found through the index "+digestOf(t, map[string]v1.ImageIndex{"a-1": index, "nested-1": nested}[c.tag]).String())
					}
				}
				_, err = find(repository + ":a-2")
				require.ErrorIs(t, err, ErrMissing)
			})
		}
	}
}
