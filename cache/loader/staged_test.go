package loader

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/enginetest"
)

// An engine that is killed when it has given the image in an archive its name, and not yet
// unpacked it: nothing can put that right then, so the name is not the reference.
func TestLoadIntoAnEngineThatDies(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		if o.Kind != enginetest.Containerd {
			return // names come last
		}
		for _, whole := range []bool{false, true} {
			engine, docker, file := prepared(t, o)
			opts, _ := options(t)
			_, err := Load(t.Context(), docker, newShelf(t).stock("x", testRef, small("x")...), opts)
			require.NoError(t, err)
			before := engine.Names()[testRef]
			died := false
			engine.SetQuirks(enginetest.Quirks{DiesUnpacking: true, TagFails: true, Before: func(r enginetest.Request) {
				died = died || r.Path == "/images/load"
			}})
			opts.Whole = whole
			_, err = Load(t.Context(), docker, file, opts)
			require.Error(t, err)
			require.True(t, died)
			assert.Equal(t, before, engine.Names()[testRef])
			requireFiles(t, engine, testRef, small("x")...)

			engine.SetQuirks(enginetest.Quirks{})
			_, err = Load(t.Context(), docker, file, opts)
			require.NoError(t, err)
			requireFiles(t, engine, testRef, small("a", "b", "c")...)
		}
	})
}

// While an archive is loaded the former image keeps the reference and its layers, and the
// name that the archive's image has until then goes with the load.
func TestLoadedUnderAnotherName(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, file := prepared(t, o)
		opts, _ := options(t)
		_, err := Load(t.Context(), docker, newShelf(t).stock("x", testRef, small("x")...), opts)
		require.NoError(t, err)
		before := engine.Names()
		var during map[string]string
		loaded := false
		// The engine is locked while it calls Before of other requests than loads: it is
		// asked in the pause of the load's verification.
		engine.SetQuirks(enginetest.Quirks{Before: func(r enginetest.Request) {
			if loaded && during == nil {
				during = engine.Names()
			}
			loaded = loaded || r.Path == "/images/load"
		}})
		_, err = Load(t.Context(), docker, file, opts)
		require.NoError(t, err)
		if o.Kind == enginetest.Containerd {
			assert.Len(t, during, len(before)+1)
			assert.Equal(t, before[testRef], during[testRef])
		} else {
			assert.Equal(t, identity(file.Image, o), during[testRef])
		}
		before[testRef] = identity(file.Image, o)
		assert.Equal(t, before, engine.Names())
	})
}

// An image of which nothing takes space, or which has no layers, is there when it is there.
func TestLoadOfAnEmptyImage(t *testing.T) {
	for name, layers := range map[string][]layer{"no layers": nil, "layers": small("a", "b")} {
		eachKind(t, func(t *testing.T, o enginetest.Options) {
			engine, file := enginetest.New(t, o), stocked(t, testRef, layers...)
			engine.SetQuirks(enginetest.Quirks{NothingUnpacked: true})
			docker := connect(t, engine)
			opts, log := options(t)
			for _, want := range []Outcome{Loaded, Present} {
				result, err := Load(t.Context(), docker, file, opts)
				require.NoError(t, err, name)
				assert.Equal(t, want, result.Outcome, name)
			}
			assert.Empty(t, log.String(), name)
			assert.Equal(t, map[string]string{testRef: identity(file.Image, o)}, engine.Names(), name)
			requireFiles(t, engine, testRef, layers...)
			assert.Zero(t, engine.Containers(), name)
		})
	}
}

// A full disk is no reason to believe that an image which is there cannot be used: also when
// nothing can be loaded either, it keeps its reference.
func TestLoadOnAFullDisk(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine, docker, file := prepared(t, o)
		opts, _ := options(t)
		_, err := Load(t.Context(), docker, file, opts)
		require.NoError(t, err)
		names := engine.Names()
		engine.SetQuirks(enginetest.Quirks{NothingUnpacked: true, NoSpace: true, StopReadingAfter: 1})
		if _, err = Load(t.Context(), docker, file, opts); err != nil {
			require.ErrorIs(t, err, ErrEngine)
			require.ErrorContains(t, err, "no space left on device")
		}
		assert.Equal(t, names, engine.Names())
		requireFiles(t, engine, testRef, small("a", "b", "c")...)
	})
}
