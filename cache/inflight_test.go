package cache

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
)

// The file of a layer in flight stays open for those who use it, and no longer; with two
// leaders the first that has the layer decides.
func TestTransfers(t *testing.T) {
	layer := cachetest.Digest(nil)
	for name, c := range map[string]struct {
		slowFirst bool // the slow leader ends before the other
	}{"the slow leader ends first": {true}, "the slow leader ends last": {false}} {
		var i inflight
		slow, fast := &flow{}, &flow{}
		first, leads := i.join(layer, slow)
		require.True(t, leads)
		waiting, leads := i.join(layer, &flow{})
		require.False(t, leads)
		require.Same(t, first, waiting)
		require.False(t, i.mayGoOn([]awaited{{transfer: first}}))
		slow.slow.Store(true)
		require.True(t, i.mayGoOn([]awaited{{transfer: first}}))
		second, leads := i.join(layer, fast)
		require.True(t, leads, "the first is slow")
		require.Same(t, first, second)
		require.False(t, i.mayGoOn([]awaited{{transfer: first}}), "they wait for the second")

		if c.slowFirst {
			i.release(layer, first, slow)
			require.False(t, first.ended, "the second is at work")
		}
		file := tempFile(t)
		i.complete(first, fast, file, 7)
		require.True(t, waiting.isComplete())
		kept := first.file
		if !c.slowFirst {
			i.complete(first, slow, file, 8)
			assert.EqualValues(t, 7, first.offset, "the first counts")
			assert.True(t, i.isFromOther(first, slow))
			assert.False(t, i.isFromOther(first, fast))
			assert.False(t, i.use(first, fast))
			require.True(t, i.use(first, slow))
			i.leave(first)
		}
		i.release(layer, first, fast)
		assert.Empty(t, i.layers, "%s: the tarball has it by now", name)
		_, err := kept.Stat()
		require.NoError(t, err, "it is used")
		i.leave(waiting)
		_, err = kept.Stat()
		require.Error(t, err, "it is closed")
		if !c.slowFirst {
			assert.False(t, i.use(first, slow))
			i.release(layer, first, slow)
		}
		assert.Empty(t, i.layers)
	}
}
