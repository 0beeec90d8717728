package enginetest_test

import (
	"bytes"
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
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/enginetest"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

const reference = "docker.io/team/image:tag"

// stock makes a tarball of an image of three layers, the first one twice.
func stock(t *testing.T) *tarball.Tarball {
	t.Helper()
	a, err := imagetest.Layer("a", 1000)
	require.NoError(t, err)
	b, err := imagetest.Layer("b", 2000)
	require.NoError(t, err)
	image, source, err := tarballtest.Image(reference, a, b, a)
	require.NoError(t, err)
	dir, err := cache.Open(t.TempDir(), nil)
	require.NoError(t, err)
	_, err = dir.Put(t.Context(), "image_main.tar", image, source, nil)
	require.NoError(t, err)
	file, err := dir.Get(t.Context(), "image_main.tar")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, file.Close()) })
	return file
}

func read(t *testing.T, file *tarball.Tarball, omit func(v1.Hash) bool) []byte {
	t.Helper()
	archive, err := file.Archive(omit)
	require.NoError(t, err)
	r := archive.Open(t.Context())
	defer r.Close()
	raw, err := io.ReadAll(r)
	require.NoError(t, err)
	return raw
}

func connect(t *testing.T, engine *enginetest.Engine) loader.Engine {
	t.Helper()
	docker, err := loader.Open(t.Context(), loader.Host{Address: engine.Address()})
	require.NoError(t, err)
	return docker
}

var kinds = map[string]enginetest.Options{
	"classic":    {Kind: enginetest.Classic},
	"containerd": {Kind: enginetest.Containerd},
	"podman":     {Kind: enginetest.Podman},
}

// identity is what an engine calls the image.
func identity(image *tarball.Image, o enginetest.Options) string {
	if o.Kind == enginetest.Containerd {
		return image.Digest().String()
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(image.Config()))
}

func TestLoads(t *testing.T) {
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) {
			engine, file := enginetest.New(t, o), stock(t)
			docker := connect(t, engine)
			whole := read(t, file, nil)
			require.NoError(t, docker.Load(t.Context(), bytes.NewReader(whole), int64(len(whole))))
			assert.Equal(t, map[string]string{reference: identity(file.Image, o)}, engine.Names())
			assert.Equal(t, []int64{int64(len(whole))}, engine.Loads())
			files, err := engine.Files(reference)
			require.NoError(t, err)
			assert.Equal(t, []string{"opt/a/data", "opt/a/name", "opt/b/data", "opt/b/name"}, slices.Sorted(maps.Keys(files)))
			assert.Equal(t, "b\n", files["opt/b/name"])
			assert.Len(t, files["opt/b/data"], 2000)

			// All layers are there now, so none is needed.
			empty := read(t, file, func(v1.Hash) bool { return true })
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
func TestVerifiesArchives(t *testing.T) {
	file := stock(t)
	whole := read(t, file, nil)
	at := file.Layout.Segments()[1].Offset
	corrupt := bytes.Clone(whole)
	corrupt[at+200] ^= 1
	layers := file.Image.Layers()
	archives := map[string][]byte{
		"corrupt":       corrupt,
		"first missing": read(t, file, func(h v1.Hash) bool { return h == layers[0].Digest }),
		"last missing":  read(t, file, func(h v1.Hash) bool { return h == layers[1].Digest }),
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
					assert.Equal(t, map[string]string{reference: file.Image.Digest().String()}, engine.Names())
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

// Docker 25 and 26 answer with an error; 27 reports it in the line alone.
func TestContainerdByVersion(t *testing.T) {
	file := stock(t)
	archive := read(t, file, func(v1.Hash) bool { return true })
	for version, want := range map[string]string{"26.1.5": "ErrEngine", "27.5.1": "line"} {
		engine := enginetest.New(t, enginetest.Options{Kind: enginetest.Containerd, Version: version})
		docker := connect(t, engine)
		err := docker.Load(t.Context(), bytes.NewReader(archive), int64(len(archive)))
		require.Error(t, err)
		assert.Equal(t, want == "line", bytes.Contains([]byte(err.Error()), []byte("Error unpacking")), version)
		_, state, err := docker.Find(t.Context(), reference)
		require.NoError(t, err)
		assert.Equal(t, loader.Unknown, state, "%s does not say what can be used", version)
	}
	engine := enginetest.New(t, enginetest.Options{Kind: enginetest.Containerd})
	engine.SetQuirks(enginetest.Quirks{SilentBroken: true})
	docker := connect(t, engine)
	require.NoError(t, docker.Load(t.Context(), bytes.NewReader(archive), int64(len(archive))))
	id, state, err := docker.Find(t.Context(), reference)
	require.NoError(t, err)
	assert.Equal(t, file.Image.Digest(), id)
	assert.Equal(t, loader.Incomplete, state)
	require.Error(t, docker.Verify(t.Context(), id))
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
