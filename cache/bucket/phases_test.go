package bucket

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/cache/timing/timingtest"
)

func TestPutTellsItsPhases(t *testing.T) {
	src := newSource()
	img := src.image(t, src.layers(50_000)...)
	b := open(t, buckettest.New(t, "bucket"), nil)
	phases := &timingtest.Log{}
	o := &cache.PutOptions{Observer: phases}
	_, err := b.Put(t.Context(), name, img, src, o)
	require.NoError(t, err)
	all := phases.Phases(t)
	assert.Equal(t, timing.Look, all[0])
	assert.Subset(t, all, []timing.Phase{timing.Lock, timing.FirstByte, timing.Hash, timing.Send, timing.Publish})
	_, err = b.Put(t.Context(), name, img, src, o)
	require.NoError(t, err)
	assert.Equal(t, []timing.Phase{timing.Look}, phases.Phases(t), "there already")
}
