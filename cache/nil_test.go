package cache

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
)

// Options that are nil are the defaults, everywhere.
func TestNilOptions(t *testing.T) {
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 100)))
	result, err := dir.Put(t.Context(), "a_main.tar", img, src, nil)
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome)
	_, err = dir.Stock(t.Context(), "b_main.tar", cachetest.Ref, remoteOf(img, src), nil)
	require.NoError(t, err)
	results, err := dir.Verify(t.Context(), nil, nil)
	require.NoError(t, err)
	require.Len(t, results, 2)
	_, err = dir.Repair(t.Context(), &results[0], src, nil)
	require.NoError(t, err)
	swept, err := dir.Sweep(t.Context(), nil)
	require.NoError(t, err)
	assert.Empty(t, swept)
	pruned, err := dir.Prune(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, 2, pruned.Left)
	require.NoError(t, WriteTarball(t.Context(), filepath.Join(t.TempDir(), "x"), img, src, nil))
}

// What is required and nil is an error, before anything is touched.
func TestNilArguments(t *testing.T) {
	dir, img, src, path := stocked(t)
	for _, c := range []struct {
		img *tarball.Image
		src tarball.Source
	}{{nil, src}, {img, nil}, {nil, nil}} {
		for _, name := range []string{"name_main.tar", "new_main.tar"} {
			result, err := dir.Put(t.Context(), name, c.img, c.src, nil)
			require.ErrorContains(t, err, "an image and a source are required")
			assert.NotNil(t, result)
			assert.Empty(t, result.Outcome)
		}
	}
	damage(t, path, 0)
	before := content(t, path)
	damaged := verifyOne(t, dir)
	for _, c := range []struct {
		damaged *VerifyResult
		src     tarball.Source
	}{{nil, src}, {damaged, nil}, {&VerifyResult{}, src}, {&VerifyResult{Name: "name_main.tar", Info: damaged.Info}, src}} {
		result, err := dir.Repair(t.Context(), c.damaged, c.src, nil)
		require.ErrorContains(t, err, "required")
		assert.NotNil(t, result)
	}
	missing, err := dir.Verify(t.Context(), []string{"missing.tar"}, nil)
	require.NoError(t, err)
	_, err = dir.Repair(t.Context(), &missing[0], src, nil)
	require.ErrorIs(t, err, fs.ErrNotExist)
	junk := filepath.Join(dir.Path(), "junk.tar")
	require.NoError(t, os.WriteFile(junk, []byte("junk"), 0o600))
	unreadable, err := dir.Verify(t.Context(), []string{"junk.tar"}, nil)
	require.NoError(t, err)
	_, err = dir.Repair(t.Context(), &unreadable[0], src, nil)
	require.ErrorContains(t, err, "stock it again")
	require.NoError(t, os.Remove(junk))
	assert.True(t, before == content(t, path))
	assert.Equal(t, []string{"name_main.tar"}, names(t, dir.Path()))
}

// Whatever is at work when its context ends, the error is both the context's and the
// caller's reason.
func TestErrorsAtTheEndOfTheContext(t *testing.T) {
	reason := errors.New("enough")
	for name, call := range map[string]func(ctx context.Context, cancel func(), dir *Dir, img *tarball.Image, src tarball.Source) error{
		"Put": func(ctx context.Context, cancel func(), dir *Dir, img *tarball.Image, src tarball.Source) error {
			_, err := dir.Put(ctx, "new_main.tar", img, src, nil)
			return err
		},
		"Stock": func(ctx context.Context, cancel func(), dir *Dir, img *tarball.Image, src tarball.Source) error {
			_, err := dir.Stock(ctx, "new_main.tar", cachetest.Ref, remoteOf(img, src), nil)
			return err
		},
		"Put that waits for a lock": func(ctx context.Context, cancel func(), dir *Dir, img *tarball.Image, src tarball.Source) error {
			lock, _, err := dir.lock(t.Context(), "new_main.tar", tarball.Run{}, false)
			require.NoError(t, err)
			defer lock.unlock()
			cancel()
			_, err = dir.Put(ctx, "new_main.tar", img, src, nil)
			return err
		},
		"Put that waits for a layer": func(ctx context.Context, cancel func(), dir *Dir, img *tarball.Image, src tarball.Source) error {
			layer := img.Layers()[0].Digest
			f := &flow{}
			transfer, leader := dir.inflight.join(layer, f)
			require.True(t, leader)
			defer dir.inflight.release(layer, transfer, f)
			cancel()
			_, err := dir.Put(ctx, "new_main.tar", img, none, nil)
			return err
		},
		"Repair": func(ctx context.Context, cancel func(), dir *Dir, img *tarball.Image, src tarball.Source) error {
			damage(t, filepath.Join(dir.Path(), "name_main.tar"), 0, 1)
			_, err := dir.Repair(ctx, verifyOne(t, dir), src, nil)
			return err
		},
		"Verify": func(ctx context.Context, cancel func(), dir *Dir, img *tarball.Image, src tarball.Source) error {
			_, err := dir.Verify(ctx, nil, &VerifyOptions{Progress: func(tarball.Progress) { cancel() }})
			return err
		},
		"Put with Verify": func(ctx context.Context, cancel func(), dir *Dir, img *tarball.Image, src tarball.Source) error {
			cancel()
			_, err := dir.Put(ctx, "name_main.tar", infoOf(t, filepath.Join(dir.Path(), "name_main.tar")).Image, none, &PutOptions{Verify: true})
			return err
		},
		"List": func(ctx context.Context, cancel func(), dir *Dir, img *tarball.Image, src tarball.Source) error {
			cancel()
			_, err := dir.List(ctx)
			return err
		},
		"Sweep": func(ctx context.Context, cancel func(), dir *Dir, img *tarball.Image, src tarball.Source) error {
			cancel()
			_, err := dir.Sweep(ctx, nil)
			return err
		},
		"Prune": func(ctx context.Context, cancel func(), dir *Dir, img *tarball.Image, src tarball.Source) error {
			_, err := dir.Prune(ctx, &PruneOptions{Count: 1, RemoveNewest: true, Filter: func(Entry) bool { cancel(); return true }})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _, blobs, _ := stocked(t)
			putAs(t, dir, "other_main.tar", testImage(t, blobs.Add(cachetest.Noise(8, 100))), blobs, tarball.Provenance{})
			ctx, cancel := context.WithCancelCause(t.Context())
			end := func() { cancel(reason) }
			img := testImage(t, blobs.Add(cachetest.Noise(9, 100)))
			src := cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
				end()
				return blobs.ReadRange(ctx, d, off, n)
			})
			err := call(ctx, end, dir, img, src)
			require.ErrorIs(t, err, reason)
			require.ErrorIs(t, err, context.Canceled)
			assert.Contains(t, names(t, dir.Path()), "name_main.tar")
			assert.NotContains(t, names(t, dir.Path()), "new_main.tar")
		})
	}
}
