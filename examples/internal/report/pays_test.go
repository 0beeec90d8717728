package report

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/advise"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

func TestCannotPay(t *testing.T) {
	dir, err := cache.Open(t.TempDir(), nil)
	require.NoError(t, err)
	require.NoError(t, tarballtest.Stock(dir, "a_main.tar", "x/a:1", 1<<20, "a"))
	path := filepath.Join(dir.Path(), "a_main.tar")
	stocked := func() *Stocked {
		return &Stocked{
			Image: "x/a:1", Outcome: "stocked", Tarball: path, BytesTotal: 200 << 20, BytesDownloaded: 200 << 20,
			Sources: []Source{{Bytes: 1}, {Bytes: 200 << 20, BytesPerSecond: 1e6, ConnectionsMean: 4, FirstByteSeconds: 0.1}},
		}
	}
	reads := func(rate float64) func(context.Context, string) (*advise.Storage, error) {
		return func(_ context.Context, at string) (*advise.Storage, error) {
			assert.Equal(t, path, at)
			return &advise.Storage{ReadOne: rate}, nil
		}
	}
	small := &Stocked{Image: "x/small:1", Outcome: "stocked", BytesDownloaded: 70 << 20, BytesTotal: 80 << 20}
	assert.Regexp(t, `^"x/a:1" cannot pay here: the storage reads 100 kB/s, so the image \(1.1 MB\) takes 10[.0-9]* s to read; a plain pull gets it in 4[.0-9]* s, over at most 3 connections of 250 kB/s; measure all ways with cache-admin advise$`,
		cannotPay(t.Context(), []*Stocked{small, stocked()}, reads(100e3)))
	assert.Empty(t, cannotPay(t.Context(), []*Stocked{stocked()}, reads(300e3)), "it reads faster than one connection gives")

	never := func(context.Context, string) (*advise.Storage, error) {
		t.Error("nothing is to be read")
		return nil, nil
	}
	for name, change := range map[string]func(r *Stocked){
		"unchanged":             func(r *Stocked) { r.Outcome = "unchanged" },
		"most was there":        func(r *Stocked) { r.BytesDownloaded = leastFetched - 1 },
		"no rate is known":      func(r *Stocked) { r.Sources[1].BytesPerSecond = 0 },
		"from several, in part": func(r *Stocked) { r.Sources[1].Bytes = leastFetched - 1 },
		"no source":             func(r *Stocked) { r.Sources = nil },
		"it is gone":            func(r *Stocked) { r.Tarball += ".gone" },
	} {
		r := stocked()
		change(r)
		assert.Empty(t, cannotPay(t.Context(), []*Stocked{r}, never), name)
	}
	assert.Empty(t, cannotPay(t.Context(), []*Stocked{stocked()}, func(context.Context, string) (*advise.Storage, error) { return nil, errors.New("read") }))
	assert.Empty(t, cannotPay(t.Context(), nil, never))
}
