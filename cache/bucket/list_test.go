package bucket

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/tarball"
)

func namesOf(entries []cache.Entry) (names []string) {
	for _, e := range entries {
		names = append(names, e.Name)
	}
	return names
}

// List has all tarballs of the prefix in order, with any characters, over pages, and nothing
// else.
func TestList(t *testing.T) {
	server := buckettest.New(t, "bucket")
	server.PageSize = 3
	b, src := open(t, server, nil), newSource()
	layer := src.layer(1, 1000)
	want := []string{
		"a b_main.tar", "a%20b.tar", "a+b_main.tar", "a&<>'\"=?#_main.tar", "b\x01\n.tar", "ä_日本.tar", "c.tar", "d_main.tar", "e..tar", "~.tar", "%.tar", "+.tar", " .tar",
	}
	slices.Sort(want)
	for _, n := range want {
		stock(t, server, n, src, layer)
	}
	raw, _ := server.Object("images/c.tar")
	for _, other := range []string{"images/sub/x.tar", "images/.x.tar", "images/x.tar.gz", "images/", "images/sub/", "x.tar", "imagesx.tar", "images/.c.tar.abc.upload", "images//x.tar"} {
		server.Put(other, raw, nil)
	}
	entries, err := b.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, want, namesOf(entries))
	for _, e := range entries {
		require.NoError(t, e.Err, e.Name)
		assert.Equal(t, int64(len(raw)), e.Size)
		assert.Equal(t, e.Size, e.Allocated)
		assert.NotNil(t, e.Info)
		assert.WithinDuration(t, time.Now(), e.Written, time.Hour)
		assert.False(t, e.LastUsed.Before(e.Written))
	}
	some := []string{"~.tar", "none.tar", "a b_main.tar", "images/sub/x.tar"}
	entries, err = b.Entries(t.Context(), some)
	require.NoError(t, err)
	assert.Equal(t, []string{"~.tar", "a b_main.tar"}, namesOf(entries))

	whole := &Bucket{}
	*whole = Bucket{name: b.name, client: b.client, log: b.log, now: b.now, infos: map[string]known{}, touched: map[string]time.Time{}}
	entries, err = whole.List(t.Context()) // without a prefix
	require.NoError(t, err)
	assert.Equal(t, []string{"imagesx.tar", "x.tar"}, namesOf(entries))
}

// What is no tarball is an entry with an error.
func TestListOfOthers(t *testing.T) {
	server := buckettest.New(t, "bucket")
	b, src := open(t, server, nil), newSource()
	stock(t, server, "good_main.tar", src, src.layer(1, 1000))
	server.Put("images/empty.tar", nil, nil)
	server.Put("images/text.tar", []byte("text"), nil)
	server.Put("images/back\\slash.tar", []byte("text"), nil)
	for range 2 {
		entries, err := b.List(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"back\\slash.tar", "empty.tar", "good_main.tar", "text.tar"}, namesOf(entries))
		require.ErrorIs(t, entries[0].Err, cache.ErrInvalidName)
		require.ErrorIs(t, entries[1].Err, tarball.ErrNotTarball)
		require.NoError(t, entries[2].Err)
		require.ErrorIs(t, entries[3].Err, tarball.ErrNotTarball)
		for _, i := range []int{0, 1, 3} {
			assert.Nil(t, entries[i].Info)
		}
		assert.Equal(t, 2, server.Count(buckettest.GetObject), "the second time nothing is read")
	}
}

// What was read is read again only when it has changed.
func TestListReadsOnce(t *testing.T) {
	server := buckettest.New(t, "bucket")
	b, src := open(t, server, nil), newSource()
	for i := range 20 {
		stock(t, server, fmt.Sprintf("%02d_main.tar", i), src, src.layer(byte(i), 1000))
	}
	count := func() (n int) {
		t.Helper()
		before := server.Count(buckettest.GetObject)
		entries, err := b.List(t.Context())
		require.NoError(t, err)
		require.Len(t, entries, 20)
		return server.Count(buckettest.GetObject) - before
	}
	_, err := b.Entries(t.Context(), []string{"03_main.tar"})
	require.NoError(t, err)
	assert.Equal(t, 1, server.Count(buckettest.GetObject), "of the others nothing is read")
	assert.Equal(t, 19, count())
	assert.Equal(t, 0, count())
	stock(t, server, "03_main.tar", src, src.layer(99, 1000))
	assert.Equal(t, 1, count())
	entries, err := b.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, src.layer(99, 1000).Digest, entries[3].Info.Image.Layers()[0].Digest)

	server.Remove("images/03_main.tar")
	entries, err = b.List(t.Context())
	require.NoError(t, err)
	require.Len(t, entries, 19)
	assert.NotContains(t, b.infos, "03_main.tar", "what is gone is forgotten")
	server.SetQuirks(buckettest.Quirks{Replace: func(op buckettest.Op, key string) {
		if op == buckettest.GetObject {
			server.Remove(key)
		}
	}})
	stock(t, server, "05_main.tar", src, src.layer(98, 1000))
	entries, err = b.List(t.Context())
	require.NoError(t, err)
	require.Len(t, entries, 18, "one that is removed meanwhile is left out")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.List(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

// Run and group are the metadata's where they are newer than the tarball's own.
func TestListOfRuns(t *testing.T) {
	server := buckettest.New(t, "bucket")
	b, src := open(t, server, nil), newSource()
	_, err := b.Put(t.Context(), name, src.image(t, src.layers(100_000)...), src, &cache.PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 7}}, Group: "ä group"})
	require.NoError(t, err)
	stock(t, server, "a_b_main.tar", src, src.layer(1, 10))
	stock(t, server, "_main.tar", src, src.layer(1, 10))
	entries, err := b.Entries(t.Context(), []string{name, "a_b_main.tar", "_main.tar"})
	require.NoError(t, err)
	assert.Equal(t, "ä group", entries[0].Group)
	assert.Equal(t, int64(7), entries[0].Run.ID)
	assert.Equal(t, "a_b", entries[1].Group)
	assert.Equal(t, "_main", entries[2].Group)
}

// A use is recorded at most once a day, whichever process does it, and is seen by List.
func TestTouch(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	b, other := open(t, server, nil), open(t, server, nil)
	require.ErrorIs(t, b.Touch(t.Context(), name), fs.ErrNotExist)
	require.ErrorIs(t, b.Touch(t.Context(), "bad"), cache.ErrInvalidName)
	stock(t, server, name, src, src.layer(1, 1000))
	puts := func(want int) {
		t.Helper()
		for _, b := range []*Bucket{b, other} {
			for range 3 {
				require.NoError(t, b.Touch(t.Context(), name))
			}
		}
		assert.Equal(t, want, server.Count(buckettest.PutObject))
	}
	used := func() time.Time {
		t.Helper()
		entries, err := b.List(t.Context())
		require.NoError(t, err)
		require.Len(t, entries, 1)
		return entries[0].LastUsed
	}
	puts(0) // it was written today
	server.Age(72 * time.Hour)
	assert.WithinDuration(t, time.Now().Add(-72*time.Hour), used(), time.Hour)
	puts(1)
	assert.WithinDuration(t, time.Now(), used(), time.Hour)
	server.Age(25 * time.Hour)
	day := func() time.Time { return time.Now().Add(time.Second) }
	b.now, other.now = day, day
	b.touched, other.touched = map[string]time.Time{}, map[string]time.Time{}
	puts(2)
	assert.Contains(t, server.Objects(), "images/."+name+usedKind)
}

// A time is recorded for a process too, without a look at the server.
func TestTouchAsksOnce(t *testing.T) {
	server := buckettest.New(t, "bucket")
	b, src := open(t, server, nil), newSource()
	stock(t, server, name, src, src.layer(1, 1000))
	server.Age(72 * time.Hour)
	require.NoError(t, b.Touch(t.Context(), name))
	before := len(server.Requests())
	require.NoError(t, b.Touch(t.Context(), name))
	assert.Len(t, server.Requests(), before+1, "one HEAD, of the tarball")

	// That a use cannot be recorded fails Touch, and nothing else.
	server.Remove("images/." + name + usedKind)
	server.SetQuirks(buckettest.Quirks{Denied: map[buckettest.Op]bool{buckettest.PutObject: true}})
	require.ErrorIs(t, open(t, server, nil).Touch(t.Context(), name), fs.ErrPermission)
	result, err := open(t, server, nil).Put(t.Context(), name, src.image(t, src.layer(1, 1000)), none, nil)
	require.NoError(t, err)
	assert.Equal(t, cache.Unchanged, result.Outcome)
}
