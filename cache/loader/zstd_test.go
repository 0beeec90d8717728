package loader

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/enginetest"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

func TestReadsZstd(t *testing.T) {
	for _, c := range []struct {
		info       info
		containerd string
		oci        string // what the error says; "" is none
		docker     string
	}{
		{info{version: "20.10.24+dfsg1"}, "1.6.20", "Docker 20.10.24+dfsg1 does not unpack layers in zstd, Docker 23.0 and later do", "Docker 23.0 and later do"},
		{info{version: "19.03.15"}, "", "Docker 23.0 and later do", "Docker 23.0 and later do"},
		{info{version: "23.0.0"}, "1.6.20", "", ""},
		{info{version: "29.0.0-rc.1"}, "1.6.20", "", ""},
		{info{version: "dev"}, "", "", ""},
		{info{version: "4.3.1", podman: true}, "", "", ""},
		{info{version: "27.5.1", containerd: true}, "v1.7.25", "", "containerd v1.7.25 does not unpack layers in zstd with Docker's media type, containerd 2.0 and later do"},
		{info{version: "28.5.2", containerd: true}, "v2.1.4", "", ""},
		{info{version: "28.5.2", containerd: true}, "", "", ""},
		{info{version: "24.0.9", containerd: true}, "1.4.13", "containerd 1.5 and later do", "containerd 2.0 and later do"},
	} {
		engine := enginetest.New(t, enginetest.Options{Kind: enginetest.Containerd})
		engine.SetQuirks(enginetest.Quirks{ContainerdVersion: c.containerd})
		d := connect(t, engine)
		d.info = &c.info
		for mediaType, want := range map[types.MediaType]string{types.OCILayerZStd: c.oci, dockerZstd: c.docker, types.DockerLayer: c.oci} {
			err := d.ReadsZstd(t.Context(), mediaType)
			if want == "" {
				require.NoError(t, err, "%v %s", c, mediaType)
				continue
			}
			require.ErrorIs(t, err, ErrUnsupported)
			assert.ErrorContains(t, err, want)
		}
	}
}

// zstdTarball is one with the layer a in gzip and b in zstd.
func zstdTarball(t *testing.T, mediaType types.MediaType) *tarball.Tarball {
	t.Helper()
	a, err := imagetest.Layer("a", 3000)
	require.NoError(t, err)
	b, err := imagetest.ZstdLayer("b", 3000, mediaType)
	require.NoError(t, err)
	s := newShelf(t)
	image, source, err := tarballtest.Image(testRef, []v1.Layer{a, b}...)
	require.NoError(t, err)
	_, err = s.dir.Put(t.Context(), "z_main.tar", image, source, nil)
	require.NoError(t, err)
	file, err := s.dir.Get(t.Context(), "z_main.tar")
	require.NoError(t, err)
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// An engine that is too old gets nothing, and the error says which is not.
func TestLoadZstdIntoAnOldEngine(t *testing.T) {
	old := enginetest.Options{Version: "20.10.24+dfsg1"}
	for _, mediaType := range []types.MediaType{types.OCILayerZStd, dockerZstd, types.DockerLayer} {
		for _, whole := range []bool{false, true} {
			engine := enginetest.New(t, old)
			docker := connect(t, engine)
			opts, _ := options(t)
			opts.Whole = whole
			_, err := Load(t.Context(), docker, newShelf(t).stock("x", testRef, small("x")...), opts)
			require.NoError(t, err)
			names := engine.Names()
			engine.Forget()
			file := zstdTarball(t, mediaType)
			result, err := Load(t.Context(), docker, file, opts)
			require.ErrorIs(t, err, ErrUnsupported)
			assert.ErrorContains(t, err, file.Image.Layers()[1].Digest.String())
			assert.ErrorContains(t, err, "Docker 23.0 and later do")
			assert.Empty(t, engine.Loads())
			assert.Equal(t, &Result{Total: file.Layout.Size()}, result)
			assert.Equal(t, names, engine.Names())
		}
	}
}

// What the engine has already it need not read.
func TestLoadZstdThatIsThere(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{Version: "20.10.24+dfsg1"})
	docker := connect(t, engine)
	opts, _ := options(t)
	_, err := Load(t.Context(), docker, stocked(t, "docker.io/team/other:tag", small("a", "b")...), opts)
	require.NoError(t, err)
	result, err := Load(t.Context(), docker, zstdTarball(t, types.OCILayerZStd), opts)
	require.NoError(t, err)
	assert.Equal(t, Delta, result.Outcome)
	requireFiles(t, engine, testRef, small("a", "b")...)
}
