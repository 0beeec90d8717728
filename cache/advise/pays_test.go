package advise

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPays(t *testing.T) {
	slow := func() Rates {
		return Rates{Registry: &Registry{Connection: 25 * mb, All: 100 * mb}, Storage: &Storage{Write: 20 * mb}}
	}
	image := Image{Layers: []int64{gb, gb, gb}}
	ephemeral := Fleet{JobsPerDay: 100, JobsPerEngine: 1}
	ok, why := Pays(slow(), image, ephemeral)
	assert.False(t, ok)
	assert.Equal(t, "the storage takes 20 MB/s, so the image (3.0 GB) takes 2m30s to read; a plain pull gets it in 40 s, over at most 3 connections of 25 MB/s", why)
	_, unknown := Pays(slow(), image, Fleet{})
	assert.Equal(t, why, unknown, "nothing is known of the fleet")

	// Engines with the build before lack less, and it may come over one connection.
	ok, why = Pays(slow(), image, Fleet{JobsPerDay: 100, BuildsPerDay: 1, New: 0.5})
	assert.False(t, ok)
	assert.Contains(t, why, "a build's new bytes (1.5 GB) takes 75 s to read; a plain pull gets it in 60 s")
	ok, _ = Pays(slow(), image, Fleet{JobsPerDay: 100, BuildsPerDay: 1, New: 0.01})
	assert.True(t, ok, "a second less")

	for name, change := range map[string]func(r *Rates, i *Image){
		"it reads faster than it writes":   func(r *Rates, _ *Image) { r.Storage.ReadOne = 200 * mb },
		"one connection is slower":         func(_ *Rates, i *Image) { i.Layers = []int64{500 * mb}; i.Layers[0] = 25 * mb },
		"the registry is as slow":          func(r *Rates, _ *Image) { r.Registry.All = 20 * mb },
		"clones read nothing":              func(r *Rates, _ *Image) { r.Storage.Reflink = true },
		"no registry":                      func(r *Rates, _ *Image) { r.Registry = nil },
		"no storage":                       func(r *Rates, _ *Image) { r.Storage = nil },
		"nothing is known of the storage":  func(r *Rates, _ *Image) { r.Storage.Write = 0 },
		"nothing is known of the registry": func(r *Rates, _ *Image) { r.Registry.Connection = math.NaN() },
		"an empty image":                   func(_ *Rates, i *Image) { i.Layers = nil },
		"an unusable image":                func(_ *Rates, i *Image) { i.Layers = []int64{-1} },
	} {
		r, i := slow(), Image{Layers: []int64{gb, gb, gb}}
		change(&r, &i)
		ok, why := Pays(r, i, ephemeral)
		assert.True(t, ok, name)
		assert.Empty(t, why, name)
	}
}

// Where it reports false, no way that reads the storage when a job waits is predicted to be
// faster than a plain pull, whatever the engine is.
func TestPaysAgreesWithPredict(t *testing.T) {
	r := example()
	image := Image{Layers: []int64{3 * gb, gb, 300 * mb}}
	f := Fleet{JobsPerDay: 1000, New: 0.05, JobsPerEngine: 1}
	failed := 0
	for _, read := range []float64{5, 10, 20, 22, 25, 28, 30, 50, 100} {
		for _, unpack := range []float64{10, 40, 300} {
			for _, pulls := range []bool{false, true} {
				r.Storage.ReadOne, r.Storage.ReadMany = read*mb, read*mb
				r.Engine.Unpack, r.Engine.Pulls = unpack*mb, pulls
				ok, _ := Pays(r, image, f)
				if ok {
					continue
				}
				failed++
				ways := predict(t, r, image, f)
				for _, name := range []string{LoadImage, ServeCache, DockerLoad} {
					assert.Greater(t, ways[name].Cold.Total(), ways[Pull].Cold.Total(), "%s at %v, %v MB/s", name, read, unpack)
				}
			}
		}
	}
	assert.Positive(t, failed)
}
