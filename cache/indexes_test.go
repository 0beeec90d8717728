package cache

import (
	"bytes"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
)

// indexed is a remote that was found through indexes.
type indexed struct {
	*remote
	indexes [][]byte
}

func (i *indexed) Indexes() [][]byte { return i.indexes }

var _ Indexer = (*indexed)(nil)

// indexOf returns an index that lists these digests. Those of different names differ.
func indexOf(name string, digests ...v1.Hash) []byte {
	var manifests []v1.Descriptor
	for _, d := range digests {
		manifests = append(manifests, v1.Descriptor{MediaType: "application/vnd.docker.distribution.manifest.v2+json", Digest: d, Size: 7})
	}
	return fmt.Appendf(nil, `{"schemaVersion":2,"manifests":%s,"annotations":{"name":%q}}`, cachetest.Marshal(manifests), name)
}

// A tarball of the same manifest that lacks an index is written again with what it has.
func TestStockAddsTheIndex(t *testing.T) {
	dir, src := oldDir(t)
	img, _ := oldImages(t, src)
	inner := indexOf("inner", img.Digest())
	outer := indexOf("outer", cachetest.Digest(inner))
	stock := func(run int64, layers tarball.Source, indexes ...[]byte) (*Result, *indexed) {
		t.Helper()
		r := &indexed{remoteOf(img, layers), indexes}
		result, err := dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: run}}})
		require.NoError(t, err)
		return result, r
	}
	for _, step := range []struct {
		name          string
		run           int64
		found, stored [][]byte
		want          Outcome
	}{
		{"by its manifest's digest", 0, nil, nil, Unchanged},
		{"an older run than its record's", 6, [][]byte{inner}, nil, Superseded},
		{"the earlier layout", 0, [][]byte{inner}, [][]byte{inner}, Stocked},
		{"again", 0, [][]byte{inner}, [][]byte{inner}, Unchanged},
		{"an older run", 6, [][]byte{indexOf("old", img.Digest())}, [][]byte{inner}, Superseded},
		{"nested", 8, [][]byte{outer, inner}, [][]byte{outer, inner}, Stocked},
		{"pinned to the inner one", 0, [][]byte{inner}, [][]byte{outer, inner}, Unchanged},
		{"pinned to the manifest", 9, nil, [][]byte{outer, inner}, Unchanged},
		{"another index", 10, [][]byte{indexOf("next", img.Digest())}, [][]byte{indexOf("next", img.Digest())}, Stocked},
	} {
		t.Run(step.name, func(t *testing.T) {
			before := content(t, filepath.Join(dir.Path(), "name_main.tar"))
			result, r := stock(step.run, none, step.found...)
			assert.Equal(t, step.want, result.Outcome)
			assert.Zero(t, result.Downloaded)
			assert.Zero(t, r.read.Load(), "the layers are there")
			assert.Equal(t, img.Digest(), result.Digest)
			stored := requireStocked(t, dir, "name_main.tar")
			assert.Equal(t, step.stored, stored.Image.Indexes())
			assert.Equal(t, stored.Layout.Size(), result.Total)
			if step.want == Stocked {
				assert.EqualValues(t, 500, result.Reused)
				assert.Equal(t, tarball.Run{ID: max(step.run, 7), Attempt: map[int64]int64{0: 2}[step.run]}, stored.Provenance.Run, "the newest that is known")
			} else {
				r.requireNotAsked(t)
				assert.True(t, before == content(t, filepath.Join(dir.Path(), "name_main.tar")), "the same bytes")
			}
		})
	}
	// So does Put.
	image, err := tarball.NewImage(cachetest.Ref, img.Manifest(), img.Config(), inner)
	require.NoError(t, err)
	for _, want := range []Outcome{Stocked, Unchanged} {
		result, err := dir.Put(t.Context(), "name_main.tar", image, none, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 11}}})
		require.NoError(t, err)
		assert.Equal(t, want, result.Outcome)
		assert.Equal(t, [][]byte{inner}, requireStocked(t, dir, "name_main.tar").Image.Indexes())
	}
}

// A layer that is damaged in the tarball comes from the source, when the index is added.
func TestStockAddsTheIndexToADamagedTarball(t *testing.T) {
	dir, img, src, path := stocked(t)
	damage(t, path, 1)
	r := &indexed{remoteOf(img, src), [][]byte{indexOf("it", img.Digest())}}
	result, err := dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, nil)
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome)
	assert.EqualValues(t, 300, result.Downloaded, "that layer alone")
	assert.Equal(t, r.indexes, requireStocked(t, dir, "name_main.tar").Image.Indexes())
}

// Content may give another manifest than the digest said, found through another index.
func TestStockKeepsTheIndexOfTheContent(t *testing.T) {
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(2, 200)))
	r := &moving{indexed{remoteOf(img, src), [][]byte{indexOf("gone", cachetest.Digest(nil))}}, [][]byte{indexOf("found", img.Digest())}}
	r.digest = cachetest.Digest(nil)
	dir := openTestDir(t)
	_, err := dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, nil)
	require.NoError(t, err)
	assert.Equal(t, r.then, requireStocked(t, dir, "name_main.tar").Image.Indexes())

	// One that does not list the manifest is an error, and nothing is written.
	bad := &indexed{remoteOf(img, src), [][]byte{indexOf("other", cachetest.Digest(nil))}}
	_, err = dir.Stock(t.Context(), "bad_main.tar", cachetest.Ref, bad, nil)
	require.ErrorIs(t, err, tarball.ErrInvalidImage)
	require.ErrorContains(t, err, "mirror/x:t", "where it is from")
	assert.NotContains(t, names(t, dir.Path()), "bad_main.tar")
}

// moving is an indexed remote whose indexes are others after Content.
type moving struct {
	indexed
	then [][]byte
}

func (m *moving) Indexes() [][]byte {
	if m.asked.Load() > 0 {
		return m.then
	}
	return m.indexes
}

// Where there is no space to write a tarball again for its index alone, it stays.
func TestNoSpaceForTheIndex(t *testing.T) {
	full, img, src, path := stocked(t)
	before := content(t, path)
	var log bytes.Buffer
	dir, err := Open(full.Path(), &Options{Quota: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	r := &indexed{remoteOf(img, src), [][]byte{indexOf("it", img.Digest())}}
	result, err := dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 4}}})
	require.NoError(t, err)
	assert.Equal(t, Unchanged, result.Outcome)
	assert.EqualValues(t, len(before), result.Total)
	assert.True(t, before == content(t, path))
	record, used := readRecord(dir.Path(), "name_main.tar")
	assert.False(t, used.IsZero(), "it was used")
	assert.EqualValues(t, 4, record.of(img.Digest()).ID, "by that run")
	assert.Contains(t, log.String(), "no space to add the index")
	assert.Equal(t, []string{".name_main.tar.mark", "name_main.tar"}, names(t, dir.Path()))

	// What is known to be damaged does not.
	_, err = dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, &PutOptions{Rewrite: true})
	require.ErrorIs(t, err, ErrQuota)
	damage(t, path, 0)
	_, err = dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, &PutOptions{Verify: true})
	require.ErrorIs(t, err, ErrQuota)
}

// A repaired tarball has its indexes still.
func TestRepairKeepsTheIndex(t *testing.T) {
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 5000)))
	dir := openTestDir(t)
	r := &indexed{remoteOf(img, src), [][]byte{indexOf("it", img.Digest())}}
	stocked, err := dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, nil)
	require.NoError(t, err)
	before := content(t, stocked.Path)
	damage(t, stocked.Path, 0)
	results, err := dir.Verify(t.Context(), nil, nil)
	require.NoError(t, err)
	require.Error(t, results[0].Err)
	_, err = dir.Repair(t.Context(), &results[0], src, nil)
	require.NoError(t, err)
	assert.True(t, before == content(t, stocked.Path))
}
