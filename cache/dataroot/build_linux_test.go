package dataroot_test

import (
	"context"
	"maps"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/testtool"
)

// What was asked for is built again, also where the images are the same; a build that is ended
// leaves what there was.
func TestBuildAgain(t *testing.T) {
	testtool.Need(t, "containerd")
	w := newWorld(t, "xfs")
	ctx := context.Background()
	engine := dataroot.Engine{Kind: dataroot.Containerd}
	one := []*tarball.Tarball{w.stock("one_main.tar", "registry.example/one:main", "a")}
	build := func(root *dataroot.Dir, o *dataroot.BuildOptions, want dataroot.Outcome) dataroot.Template {
		t.Helper()
		r, err := root.Build(ctx, "one_main", engine, one, o)
		require.NoError(t, err)
		require.Equal(t, want, r.Outcome)
		return r.Template
	}
	build(w.root, nil, dataroot.Built)
	build(w.root, &dataroot.BuildOptions{Whole: true}, dataroot.Built)
	build(w.root, nil, dataroot.Unchanged)
	larger, err := dataroot.Open(w.root.Path(), &dataroot.Options{Size: 2 << 30})
	require.NoError(t, err)
	assert.EqualValues(t, 2<<30, build(larger, nil, dataroot.Built).Record.Size)
	byDefault, err := dataroot.Open(w.root.Path(), nil)
	require.NoError(t, err)
	before := build(byDefault, nil, dataroot.Unchanged)

	ended, cancel := context.WithCancel(ctx)
	loading := &dataroot.BuildOptions{Whole: true, Load: &loader.Options{Progress: func(tarball.Progress) { cancel() }}}
	_, err = byDefault.Build(ended, "one_main", engine, one, loading)
	require.ErrorIs(t, err, context.Canceled)
	assert.Zero(t, loops(t, w.root.Path(), 0))
	after, err := byDefault.Get(before.Name)
	require.NoError(t, err)
	assert.Equal(t, before.Record, after.Record)
}

// What others unmount while a build goes on is gone: the build does not have it.
func TestBuildKeepsNothingBusy(t *testing.T) {
	testtool.Need(t, "containerd")
	w := newWorld(t, "xfs")
	one := []*tarball.Tarball{w.stock("one_main.tar", "registry.example/one:main", "a")}
	other := w.clone(w.built(t).Name)
	discarded := false
	o := &dataroot.BuildOptions{Load: &loader.Options{Progress: func(tarball.Progress) {
		if !discarded {
			discarded = true
			assert.NoError(t, dataroot.Discard(context.Background(), other.At))
		}
	}}}
	_, err := w.root.Build(context.Background(), "other", dataroot.Engine{Kind: dataroot.Containerd}, one, o)
	require.NoError(t, err)
	assert.True(t, discarded)
}

// used returns how many bytes of its file system a template uses.
func (w *world) used(name string) int64 {
	w.t.Helper()
	c := w.clone(name)
	var s syscall.Statfs_t
	require.NoError(w.t, syscall.Statfs(c.At, &s))
	require.NoError(w.t, dataroot.Discard(context.Background(), c.At))
	return int64(s.Blocks-s.Bfree) * s.Bsize
}

// With each engine: built, unchanged, refreshed by a layer and a reference less, verified.
func TestBuild(t *testing.T) {
	w := newWorld(t, "xfs")
	all := engines(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			e := all[name]
			if e.Program == "" {
				testtool.Missing(t, "DOCKERCACHE_NEW_DOCKERD, or DOCKERCACHE_CONTAINERD2, does not say where %s is", name)
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

			// What is not wanted any more is gone, also what only the image before had.
			used, allocated := w.used(r.Template.Name), r.Template.Allocated
			for _, layer := range []string{"e", "f", "g"} {
				newer = w.stock("one_main.tar", "registry.example/one:main", "a", "b", layer)
				r, err = w.root.Build(ctx, "pair", e, []*tarball.Tarball{newer}, nil)
				require.NoError(t, err)
				assert.Less(t, w.used(r.Template.Name), used+1<<20)
			}
			assert.Less(t, r.Template.Allocated, allocated+2<<20) // of three layers of a MiB
		})
	}
}
