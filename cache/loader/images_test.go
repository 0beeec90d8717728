package loader

import (
	"encoding/json"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/loader/enginetest"
)

func TestFindAndName(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, tarball := prepared(t, o)
		id, usable, err := docker.Find(t.Context(), testRef)
		require.NoError(t, err)
		assert.Equal(t, v1.Hash{}, id)
		assert.False(t, usable)
		require.NoError(t, docker.Name(t.Context(), testRef, v1.Hash{})) // it has none

		opts, _ := options(t)
		_, err = Load(t.Context(), docker, tarball, opts)
		require.NoError(t, err)
		id, usable, err = docker.Find(t.Context(), testRef)
		require.NoError(t, err)
		assert.Equal(t, identity(tarball.Image, o), id.String())
		assert.True(t, usable)

		const other = "localhost:5000/team/image:1.0"
		require.NoError(t, docker.Name(t.Context(), other, id))
		assert.Equal(t, id.String(), engine.Names()[other])
		require.NoError(t, docker.Name(t.Context(), testRef, v1.Hash{}))
		assert.NotContains(t, engine.Names(), testRef)
		assert.Equal(t, id.String(), engine.Names()[other])
		require.ErrorIs(t, docker.Name(t.Context(), other, v1.Hash{Algorithm: "sha256", Hex: id.Hex[:62] + "00"}), ErrEngine)
		require.Error(t, docker.Name(t.Context(), "No Reference", id))
	})
}

// As Docker 28 answers.
func TestUsable(t *testing.T) {
	const id = "sha256:0b0af7e7a3ee9b3d2ddc5e7e44a6ad5e2a7ac9e1c4bb6e12a51e24c3dd8bb1a5"
	const layers = `"RootFS":{"Type":"layers","Layers":["` + id + `"]}`
	for answer, want := range map[string]bool{
		`{"Id":"` + id + `",` + layers + `}`:                  true,
		`{"Id":"` + id + `",` + layers + `,"Manifests":null}`: true,
		`{"Id":"` + id + `",` + layers + `,"Manifests":[{"ID":"` + id + `","Available":true,"ImageData":{"Size":{"Unpacked":8192}}}]}`:  true,
		`{"Id":"` + id + `",` + layers + `,"Manifests":[{"ID":"` + id + `","Available":false,"ImageData":{"Size":{"Unpacked":8192}}}]}`: false,
		`{"Id":"` + id + `",` + layers + `,"Manifests":[{"ID":"` + id + `","Available":true,"ImageData":{"Size":{"Unpacked":0}}}]}`:     false,
		`{"Id":"` + id + `",` + layers + `,"Manifests":[{"ID":"` + id + `","Available":true}]}`:                                         true,
		// An image of no layer has nothing to unpack.
		`{"Id":"` + id + `","RootFS":{},"Manifests":[{"ID":"` + id + `","Available":true,"ImageData":{"Size":{"Unpacked":0}}}]}`: true,
		// That of another platform, in an index.
		`{"Id":"` + id + `",` + layers + `,"Manifests":[{"ID":"sha256:00","Available":false}]}`: true,
	} {
		var found imageJSON
		require.NoError(t, json.Unmarshal([]byte(answer), &found))
		assert.Equal(t, want, found.usable(), answer)
	}
}

func TestHas(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, tarball := prepared(t, o)
		layers := tarball.Image.Layers()
		want := map[v1.Hash]bool{layers[0].Digest: true, layers[1].Digest: true, layers[2].Digest: false}
		// An image that cannot be inspected is no reason not to know the others.
		for _, q := range []enginetest.Quirks{{}, {BrokenInspect: true}} {
			engine.SetQuirks(q)
			has, err := docker.Has(t.Context(), tarball.Image)
			require.NoError(t, err)
			assert.Equal(t, want, has)
		}
		engine.Close()
		_, err := docker.Has(t.Context(), tarball.Image)
		require.ErrorIs(t, err, ErrUnreachable)
	})
}
