package interop

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
)

// What a container uses stays, with its reference; what none uses goes.
func TestRemove(t *testing.T) {
	onEngines(t, func(t *testing.T, e engine) {
		if strings.HasSuffix(t.Name(), "/containerd") {
			return // TestKeep is for that one
		}
		s := newStore(t)
		stocked := s.stock("a_main.tar", "team/image:a-1", "one", "two")
		other := s.stock("b_main.tar", "team/image:b-1", "one", "three")
		for _, image := range []*tarball.Tarball{stocked, other} {
			_, err := loader.Load(t.Context(), e, image, s.options())
			require.NoError(t, err)
		}
		remover := e.Engine.(loader.Remover)
		reference := stocked.Image.Reference()

		release := e.use(t, reference)
		err := remover.Remove(t.Context(), reference)
		require.ErrorIs(t, err, loader.ErrInUse)
		t.Log(err)
		requireNamed(t, e, reference)

		release()
		require.NoError(t, remover.Remove(t.Context(), reference))
		id, _, err := e.Find(t.Context(), reference)
		require.NoError(t, err)
		assert.Zero(t, id)
		require.NoError(t, remover.Remove(t.Context(), reference), "it is gone already")
		requireLoad(t, e, s, other, loader.Present)
	})
}
