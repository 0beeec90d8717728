package loader

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/cache/timing/timingtest"
	"github.com/dockercache/dockercache/internal/enginetest"
)

func TestLoadTellsItsPhases(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine := enginetest.New(t, o)
		file := stocked(t, testRef, small("a", "b")...)
		opts, _ := options(t)
		phases := &timingtest.Log{}
		opts.Observer = phases
		_, err := Load(t.Context(), connect(t, engine), file, opts)
		require.NoError(t, err)
		assert.Equal(t, []timing.Phase{timing.Find, timing.Lock, timing.Find, timing.Stream, timing.Engine, timing.Verify}, phases.Phases(t))

		_, err = Load(t.Context(), connect(t, engine), file, opts)
		require.NoError(t, err)
		assert.Equal(t, timing.Find, phases.Phases(t)[0], "there already: %s", o.Kind)
	})
}

// While an engine pulls it asks for layers and unpacks them in turns.
func TestPullTellsItsPhases(t *testing.T) {
	eachPuller(t, func(t *testing.T, engine *enginetest.Engine, _ enginetest.Options) {
		file := stocked(t, testRef, small("a", "b", "c")...)
		opts, _ := pulling(t)
		phases := &timingtest.Log{}
		opts.Observer = phases
		_, err := Load(t.Context(), connect(t, engine), file, opts)
		require.NoError(t, err)
		all := phases.Phases(t)
		require.Greater(t, len(all), 5)
		assert.Equal(t, []timing.Phase{timing.Find, timing.Lock, timing.Find, timing.Stream}, all[:4])
		assert.Contains(t, all, timing.Engine)
		assert.Equal(t, timing.Verify, all[len(all)-1])
	})
}

func TestPhasesOfALoadEndWithAnError(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{Kind: enginetest.Classic})
	file := stocked(t, testRef, small("a")...)
	opts, _ := options(t)
	phases := &timingtest.Log{}
	opts.Observer = phases
	e := connect(t, engine)
	engine.Close()
	_, err := Load(t.Context(), e, file, opts)
	require.ErrorIs(t, err, ErrUnreachable)
	assert.Equal(t, []timing.Phase{timing.Find}, phases.Phases(t))
}
