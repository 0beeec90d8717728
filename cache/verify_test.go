package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
)

func TestDirVerify(t *testing.T) {
	dir, img, src, good := stocked(t)
	bad := putAs(t, dir, "bad_main.tar", img, src, tarball.Provenance{})
	damage(t, bad, 0, 1)
	require.NoError(t, os.WriteFile(filepath.Join(dir.Path(), "none_main.tar"), []byte("x"), 0o644))
	require.NoError(t, os.Symlink(good, filepath.Join(dir.Path(), "link_main.tar")))

	var mu sync.Mutex
	var last tarball.Progress
	results, err := dir.Verify(t.Context(), nil, &VerifyOptions{Progress: func(p tarball.Progress) {
		mu.Lock()
		defer mu.Unlock()
		last = tarball.Progress{Done: max(p.Done, last.Done), Total: p.Total}
	}})
	require.NoError(t, err)
	require.Len(t, results, 3, "a link is no tarball")
	assert.Equal(t, "bad_main.tar", results[0].Name)
	require.ErrorIs(t, results[0].Err, tarball.ErrDigest)
	assert.Equal(t, []v1.Hash{img.Layers()[0].Digest, img.Layers()[1].Digest}, results[0].Damaged)
	assert.Equal(t, img.Digest(), results[0].Info.Image.Digest())
	assert.Equal(t, "name_main.tar", results[1].Name)
	require.NoError(t, results[1].Err)
	assert.Empty(t, results[1].Damaged)
	require.ErrorIs(t, results[2].Err, tarball.ErrNotTarball)
	assert.Nil(t, results[2].Info)
	all := results[0].Info.Layout.Size() + results[1].Info.Layout.Size()
	assert.Equal(t, tarball.Progress{Done: all, Total: all}, last)

	// By name, in that order.
	results, err = dir.Verify(t.Context(), []string{"name_main.tar", "missing.tar", "../x.tar", "link_main.tar"}, &VerifyOptions{Parallel: 1})
	require.NoError(t, err)
	require.Len(t, results, 4)
	require.NoError(t, results[0].Err)
	require.ErrorIs(t, results[1].Err, os.ErrNotExist)
	require.ErrorIs(t, results[2].Err, ErrInvalidName)
	require.ErrorIs(t, results[3].Err, tarball.ErrNotTarball)
	assert.ErrorContains(t, results[3].Err, "symbolic link")
}

func TestDirVerifyEnds(t *testing.T) {
	dir, _, _, _ := stocked(t)
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := dir.Verify(ctx, nil, &VerifyOptions{Progress: func(tarball.Progress) { cancel(reason) }})
	require.ErrorIs(t, err, reason)
	require.NoError(t, os.RemoveAll(dir.Path()))
	_, err = dir.Verify(t.Context(), nil, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
}
