package measure_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/advise/measure"
	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/internal/testtool"
)

func TestRoot(t *testing.T) {
	testtool.NeedMounts(t)
	testtool.Need(t, "dockerd")
	dir := t.TempDir()
	r, samples, err := measure.Root(t.Context(), dir, dataroot.Engine{Kind: dataroot.Docker})
	if errors.Is(err, dataroot.ErrUnsupported) {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Logf("%+v %+v", r, samples)
	assert.Positive(t, r.Mount)
	assert.Positive(t, r.Start)
	assert.Positive(t, r.Close)
	assertEmpty(t, dir)
	clones, err := dataroot.Clones()
	require.NoError(t, err)
	for _, c := range clones {
		assert.NotContains(t, c.At, dir)
	}
}

func TestRootWithoutEngine(t *testing.T) {
	dir := t.TempDir()
	_, _, err := measure.Root(t.Context(), dir, dataroot.Engine{Kind: dataroot.Docker, Program: "no-such-engine"})
	require.ErrorIs(t, err, dataroot.ErrUnsupported)
	assertEmpty(t, dir)
}
