package loader

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/loader/enginetest"
)

// careless is an engine that should prove layers and does not: it loads another
// archive than it is sent, which is as it should be.
type careless struct {
	*Docker
	good *cache.Tarball
}

func (c careless) Load(ctx context.Context, archive io.Reader, _ int64) error {
	if _, err := io.Copy(io.Discard, archive); err != nil {
		return err
	}
	good, err := c.good.Archive(nil)
	if err != nil {
		return err
	}
	r := good.Open(ctx)
	defer r.Close()
	return c.Docker.Load(ctx, r, good.Size())
}

// Where the engine proves layers while it unpacks them, they are proven here all the
// same: a damaged tarball is found out whatever the engine says, and its name goes back.
func TestLayersAreProvenBesideTheEngine(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{})
	docker := connect(t, engine)
	require.True(t, docker.ProvesLayers(t.Context()))
	opts, _ := options(t)
	before := stocked(t, testRef, small("x")...)
	_, err := Load(t.Context(), docker, before, opts)
	require.NoError(t, err)
	names := engine.Names()

	good := stocked(t, testRef, small("a", "b")...)
	bad := newShelf(t).stock("image", testRef, small("a", "b")...)
	corrupt(t, bad, 1)
	result, err := Load(t.Context(), careless{docker, good}, bad, opts)
	require.ErrorIs(t, err, cache.ErrBlobDigest)
	assert.ErrorContains(t, err, bad.Path)
	assert.Empty(t, result.Outcome)
	assert.Equal(t, names, engine.Names())

	result, err = Load(t.Context(), careless{docker, good}, good, opts)
	require.NoError(t, err)
	assert.NotEmpty(t, result.Outcome)
}

// Only Docker's classic store is known to prove layers before anything has the name.
func TestProvesLayers(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		assert.Equal(t, o.Kind == enginetest.Classic, connect(t, enginetest.New(t, o)).ProvesLayers(t.Context()))
	})
	engine := enginetest.New(t, enginetest.Options{})
	engine.SetQuirks(enginetest.Quirks{DenyInfo: true})
	assert.False(t, connect(t, engine).ProvesLayers(t.Context()), "one that tells nothing of itself")
}
