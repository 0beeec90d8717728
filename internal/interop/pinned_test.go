package interop

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/imagetest"
)

// What docker-cache has stocked by a reference load-image loads by the same one, and by the
// others that are pinned to what it was found through.
func TestPinned(t *testing.T) {
	onEngines(t, func(t *testing.T, e engine) {
		s := newStore(t)
		layer, err := imagetest.Layer(s.id+"pinned", 1<<16)
		require.NoError(t, err)
		image, err := imagetest.Image(layer)
		require.NoError(t, err)
		ref := pushNested(t, s.server, "team/image:a-1", image)
		digest, err := image.Digest()
		require.NoError(t, err)
		program := func(name string, args ...string) string {
			return run(t, buildExample(t, name), append([]string{"-dir", s.dir.Path(), "-branch", "main"}, args...)...)
		}
		program("docker-cache", ref)
		stocked, err := s.dir.Get(t.Context(), "a_main.tar")
		require.NoError(t, err)
		defer stocked.Close()
		var pins []string
		for _, index := range stocked.Image.Indexes() {
			d := v1.Hash{Algorithm: "sha256", Hex: sha256Hex(index)}
			pins = append(pins, ref+"@"+d.String())
		}
		require.Len(t, pins, 2)
		assert.Contains(t, program("docker-cache", pins[0]), "unchanged")
		assert.Contains(t, program("load-image", "-host", e.address, "-lock-dir", t.TempDir(), pins[0]), "loaded")
		requireSameFiles(t, e, stocked)
		for _, pin := range append(pins, ref, ref+"@"+digest.String()) {
			assert.Contains(t, program("load-image", "-host", e.address, "-lock-dir", t.TempDir(), pin), "present")
		}
		_, err = try(t, buildExample(t, "load-image"), "-dir", s.dir.Path(), "-host", e.address, ref+"@sha256:"+sha256Hex(nil))
		require.ErrorContains(t, err, "exit status 3")
		require.ErrorContains(t, err, "no tarball: a_main.tar holds the manifest "+digest.String()+", found through the index sha256:")
	})
}
