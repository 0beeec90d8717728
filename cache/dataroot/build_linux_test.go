package dataroot_test

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/testtool"
)

// With each engine: built, unchanged, refreshed by a layer and a reference less, verified.
func TestBuild(t *testing.T) {
	w := newWorld(t, "xfs")
	all := engines(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			e := all[name]
			if e.Program == "" {
				testtool.Missing(t, "DOCKERCACHE_NEW_DOCKERD does not name the program of a newer Docker Engine")
			}
			testtool.Need(t, e.Program)
			ctx := context.Background()
			w := openWorld(t, w.at)
			one := w.stock("one_main.tar", "registry.example/one:main", "a", "b")
			two := w.stock("two_main.tar", "registry.example/two:main", "a", "c")

			r, err := w.root.Build(ctx, "pair", e, []*tarball.Tarball{one, two}, nil)
			require.NoError(t, err)
			assert.Equal(t, dataroot.Built, r.Outcome)
			require.Len(t, r.Template.Record.Images, 2)
			t.Log(r.Template.Name, r.Template.Allocated, r.Took)
			require.NoError(t, w.root.Verify(ctx, r.Template.Name, e, one, two))

			again, err := w.root.Build(ctx, "pair", e, []*tarball.Tarball{two, one}, nil)
			require.NoError(t, err)
			assert.Equal(t, dataroot.Unchanged, again.Outcome)

			newer := w.stock("one_main.tar", "registry.example/one:main", "a", "b", "d")
			r, err = w.root.Build(ctx, "pair", e, []*tarball.Tarball{newer}, nil)
			require.NoError(t, err)
			assert.Equal(t, dataroot.Refreshed, r.Outcome)
			assert.Equal(t, []string{"registry.example/two:main"}, r.Removed)
			assert.Equal(t, loader.Delta, r.Loaded["registry.example/one:main"].Outcome)
			require.Len(t, r.Template.Record.Images, 1)
			assert.Equal(t, newer.Image.Digest(), r.Template.Record.Images[0].Digest)
			require.NoError(t, w.root.Verify(ctx, r.Template.Name, e, newer))
			assert.ErrorIs(t, w.root.Verify(ctx, r.Template.Name, e, one), dataroot.ErrWrong)
			t.Log(r.Template.Allocated, r.Took)
		})
	}
}
