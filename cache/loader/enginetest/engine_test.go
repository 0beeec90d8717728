package enginetest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/loader/enginetest"
	"github.com/dockercache/dockercache/internal/imagetest"
)

const reference = "docker.io/team/image:tag"

// source gives the layers of an image.
type source struct{ v1.Image }

func (s source) ReadRange(_ context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	l, err := s.LayerByDigest(digest)
	if err != nil {
		return nil, err
	}
	r, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, r, offset); err != nil {
		return nil, err
	}
	return io.NopCloser(io.LimitReader(r, length)), nil
}

// stock makes a tarball of an image of three layers, the first one twice.
func stock(t *testing.T) *cache.Tarball {
	t.Helper()
	a, err := imagetest.Layer("a", 1000)
	require.NoError(t, err)
	b, err := imagetest.Layer("b", 2000)
	require.NoError(t, err)
	img, err := imagetest.Image(a, b, a)
	require.NoError(t, err)
	manifest, err := img.RawManifest()
	require.NoError(t, err)
	config, err := img.RawConfigFile()
	require.NoError(t, err)
	image, err := cache.NewImage(reference, manifest, config)
	require.NoError(t, err)
	dir, err := cache.OpenDir(t.TempDir(), nil)
	require.NoError(t, err)
	_, err = dir.Put(t.Context(), "image_main.tar", image, source{img}, nil)
	require.NoError(t, err)
	tarball, err := dir.Lookup("image_main.tar")
	require.NoError(t, err)
	return tarball
}

func read(t *testing.T, tarball *cache.Tarball, omit func(v1.Hash) bool) []byte {
	t.Helper()
	archive, err := tarball.Archive(omit)
	require.NoError(t, err)
	r := archive.Open(t.Context())
	defer r.Close()
	raw, err := io.ReadAll(r)
	require.NoError(t, err)
	return raw
}

func connect(t *testing.T, engine *enginetest.Engine) *loader.Docker {
	t.Helper()
	docker, err := loader.Connect(t.Context(), loader.Host{Address: engine.Address()})
	require.NoError(t, err)
	return docker
}

var kinds = map[string]enginetest.Options{
	"classic":    {Kind: enginetest.Classic},
	"containerd": {Kind: enginetest.Containerd},
	"podman":     {Kind: enginetest.Podman},
}

// identity is what an engine calls the image.
func identity(image *cache.Image, o enginetest.Options) string {
	if o.Kind == enginetest.Containerd {
		return image.Digest().String()
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(image.Config()))
}

func TestLoads(t *testing.T) {
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) {
			engine, tarball := enginetest.New(t, o), stock(t)
			docker := connect(t, engine)
			whole := read(t, tarball, nil)
			require.NoError(t, docker.Load(t.Context(), bytes.NewReader(whole), int64(len(whole))))
			assert.Equal(t, map[string]string{reference: identity(tarball.Image, o)}, engine.Names())
			assert.Equal(t, []int64{int64(len(whole))}, engine.Loads())
			files, err := engine.Files(reference)
			require.NoError(t, err)
			assert.Equal(t, []string{"opt/a/data", "opt/a/name", "opt/b/data", "opt/b/name"}, slices.Sorted(maps.Keys(files)))
			assert.Equal(t, "b\n", files["opt/b/name"])
			assert.Len(t, files["opt/b/data"], 2000)

			// All layers are there now, so none is needed.
			empty := read(t, tarball, func(v1.Hash) bool { return true })
			require.NoError(t, docker.Load(t.Context(), bytes.NewReader(empty), int64(len(empty))))
			engine.SetQuirks(enginetest.Quirks{RefuseDelta: true})
			require.ErrorIs(t, docker.Load(t.Context(), bytes.NewReader(empty), int64(len(empty))), loader.ErrEngine)

			// With the image its layers go.
			engine.SetQuirks(enginetest.Quirks{})
			require.NoError(t, docker.Name(t.Context(), reference, v1.Hash{}))
			assert.Empty(t, engine.IDs())
			require.ErrorIs(t, docker.Load(t.Context(), bytes.NewReader(empty), int64(len(empty))), loader.ErrEngine)
		})
	}
}

// What real engines do with an archive that is not right: two refuse it, and
// Docker with containerd's store keeps an image that cannot be used.
func TestProvesArchives(t *testing.T) {
	tarball := stock(t)
	whole := read(t, tarball, nil)
	at := tarball.Layout.Segments()[1].Offset
	corrupt := bytes.Clone(whole)
	corrupt[at+200] ^= 1
	layers := tarball.Image.Layers()
	archives := map[string][]byte{
		"corrupt":       corrupt,
		"first missing": read(t, tarball, func(h v1.Hash) bool { return h == layers[0].Digest }),
		"last missing":  read(t, tarball, func(h v1.Hash) bool { return h == layers[1].Digest }),
	}
	for name, o := range kinds {
		for what, archive := range archives {
			t.Run(name+"/"+what, func(t *testing.T) {
				engine := enginetest.New(t, o)
				err := connect(t, engine).Load(t.Context(), bytes.NewReader(archive), int64(len(archive)))
				require.ErrorIs(t, err, loader.ErrEngine)
				_, filesErr := engine.Files(reference)
				require.Error(t, filesErr)
				if o.Kind == enginetest.Containerd {
					assert.ErrorContains(t, err, "Error unpacking image "+reference)
					assert.Equal(t, map[string]string{reference: tarball.Image.Digest().String()}, engine.Names())
					return
				}
				assert.Empty(t, engine.Names())
				assert.Empty(t, engine.IDs())
			})
		}
		t.Run(name+"/truncated", func(t *testing.T) {
			engine := enginetest.New(t, o)
			err := connect(t, engine).Load(t.Context(), bytes.NewReader(whole[:at+100]), at+100)
			require.ErrorContains(t, err, "unexpected EOF")
			assert.Empty(t, engine.IDs())
		})
	}
}

// Docker 25 and 26 answer with an error; 27 said nothing else of it than the line.
func TestContainerdByVersion(t *testing.T) {
	tarball := stock(t)
	archive := read(t, tarball, func(v1.Hash) bool { return true })
	for version, want := range map[string]string{"26.1.5": "ErrEngine", "27.5.1": "line"} {
		engine := enginetest.New(t, enginetest.Options{Kind: enginetest.Containerd, Version: version})
		docker := connect(t, engine)
		err := docker.Load(t.Context(), bytes.NewReader(archive), int64(len(archive)))
		require.Error(t, err)
		assert.Equal(t, want == "line", bytes.Contains([]byte(err.Error()), []byte("Error unpacking")), version)
		_, usable, err := docker.Find(t.Context(), reference)
		require.NoError(t, err)
		assert.True(t, usable, "%s does not tell what is usable", version)
	}
	engine := enginetest.New(t, enginetest.Options{Kind: enginetest.Containerd})
	engine.SetQuirks(enginetest.Quirks{SilentBroken: true})
	docker := connect(t, engine)
	require.NoError(t, docker.Load(t.Context(), bytes.NewReader(archive), int64(len(archive))))
	id, usable, err := docker.Find(t.Context(), reference)
	require.NoError(t, err)
	assert.Equal(t, tarball.Image.Digest(), id)
	assert.False(t, usable)
	require.Error(t, docker.Prove(t.Context(), id))
}

func TestClose(t *testing.T) {
	engine, err := enginetest.Start(enginetest.Options{})
	require.NoError(t, err)
	_, certs, err := engine.ListenTLS()
	require.NoError(t, err)
	engine.Close()
	engine.Close()
	_, err = os.Stat(certs)
	require.ErrorIs(t, err, os.ErrNotExist)
}
