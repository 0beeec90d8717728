package bucket

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/tarball"
)

// stockInOrder stores tarballs, each an hour after the one before.
func stockInOrder(t testing.TB, server *buckettest.Server, names ...string) (size int64) {
	t.Helper()
	src := newSource()
	layer := src.layer(1, 100_000)
	for _, n := range names {
		server.Age(time.Hour)
		size = int64(len(stock(t, server, n, src, layer)))
	}
	return size
}

func removedOf(r *cache.PruneResult) (names []string) {
	for _, p := range r.Removed {
		names = append(names, p.Entry.Name)
	}
	return names
}

func keptOf(r *cache.PruneResult) map[string]cache.KeepReason {
	kept := map[string]cache.KeepReason{}
	for _, p := range r.Kept {
		kept[p.Entry.Name] = p.Kept
	}
	return kept
}

// tarballsOf are the names of the tarballs that are there.
func tarballsOf(server *buckettest.Server) (names []string) {
	for _, key := range server.Objects() {
		if n := strings.TrimPrefix(key, "images/"); isTarballName(n) {
			names = append(names, n)
		}
	}
	return names
}

// Each limit is kept by what was used least recently, the newest of each group stays, and a dry run says
// the same and removes nothing.
func TestPrune(t *testing.T) {
	names := []string{"a_1.tar", "b_1.tar", "a_2.tar", "c_1.tar", "a_3.tar"} // the oldest first
	for about, c := range map[string]struct {
		o       cache.PruneOptions
		removed []string
		kept    []string
	}{
		"no limit":      {},
		"count":         {cache.PruneOptions{Count: 3}, []string{"a_1.tar", "a_2.tar"}, []string{"b_1.tar"}},
		"count, all":    {cache.PruneOptions{Count: 2, RemoveNewest: true}, []string{"a_1.tar", "b_1.tar", "a_2.tar"}, nil},
		"age":           {cache.PruneOptions{MaxAge: 90 * time.Minute, RemoveNewest: true}, []string{"a_1.tar", "b_1.tar", "a_2.tar"}, nil},
		"age, newest":   {cache.PruneOptions{MaxAge: 90 * time.Minute}, []string{"a_1.tar", "a_2.tar"}, []string{"b_1.tar"}},
		"bytes":         {cache.PruneOptions{MaxBytes: 4, RemoveNewest: true}, []string{"a_1.tar"}, nil},
		"low water":     {cache.PruneOptions{MaxBytes: 4, LowWater: 2, RemoveNewest: true}, []string{"a_1.tar", "b_1.tar", "a_2.tar"}, nil},
		"bytes, filter": {cache.PruneOptions{MaxBytes: 1, RemoveNewest: true, Filter: func(e cache.Entry) bool { return e.Name[0] == 'a' }}, []string{"a_1.tar", "a_2.tar"}, nil},
		"group":         {cache.PruneOptions{Count: 1, Group: func(e cache.Entry) string { return "all" }}, []string{"a_1.tar", "b_1.tar", "a_2.tar", "c_1.tar"}, nil},
	} {
		t.Run(about, func(t *testing.T) {
			server := buckettest.New(t, "bucket")
			size := stockInOrder(t, server, names...)
			server.Put("images/foreign_1.tar", []byte("foreign"), nil)
			server.Age(time.Minute)
			b := open(t, server, nil)
			o := c.o
			o.MaxBytes, o.LowWater = o.MaxBytes*size, o.LowWater*size
			o.DryRun = true
			dry, err := b.Prune(t.Context(), &o)
			require.NoError(t, err)
			assert.Equal(t, c.removed, removedOf(dry))
			assert.Len(t, tarballsOf(server), 6)
			assert.Zero(t, server.Count(buckettest.DeleteObject))

			o.DryRun = false
			r, err := b.Prune(t.Context(), &o)
			require.NoError(t, err)
			assert.Equal(t, c.removed, removedOf(r))
			assert.Equal(t, int64(len(c.removed))*size, r.Freed)
			assert.Equal(t, dry.Left, r.Left)
			assert.Equal(t, int64(r.Left)*size, r.LeftBytes)
			kept := keptOf(r)
			assert.Len(t, kept, len(c.kept))
			for _, n := range c.kept {
				assert.Equal(t, cache.KeepNewest, kept[n])
			}
			left := tarballsOf(server)
			assert.Len(t, left, 6-len(c.removed))
			assert.Contains(t, left, "foreign_1.tar")
			for _, n := range c.removed {
				assert.NotContains(t, left, n)
			}
		})
	}
	_, err := open(t, buckettest.New(t, "bucket"), nil).Prune(t.Context(), &cache.PruneOptions{Count: -1})
	require.Error(t, err)
}

// What was used lately stays, and what is recorded of its use goes with it.
func TestPruneKeepsTheUsed(t *testing.T) {
	server := buckettest.New(t, "bucket")
	stockInOrder(t, server, "a_1.tar", "b_1.tar", "c_1.tar")
	server.Age(48 * time.Hour)
	b := open(t, server, nil)
	require.NoError(t, b.Touch(t.Context(), "a_1.tar"))
	r, err := b.Prune(t.Context(), &cache.PruneOptions{Count: 1, RemoveNewest: true})
	require.NoError(t, err)
	assert.Equal(t, []string{"b_1.tar", "c_1.tar"}, removedOf(r))
	require.NoError(t, b.Remove(t.Context(), "a_1.tar"))
	assert.Empty(t, server.Objects())
}

// One that is replaced after it was listed stays, and another goes in its place. One that
// another process has removed counts as removed.
func TestPruneOfAReplaced(t *testing.T) {
	for about, quirks := range map[string]buckettest.Quirks{"S3": {}, "no conditions of deletions": {RefusesConditions: true}} {
		t.Run(about, func(t *testing.T) {
			server := buckettest.New(t, "bucket")
			stockInOrder(t, server, "a_1.tar", "b_1.tar", "c_1.tar", "d_1.tar")
			src := newSource()
			changed := false
			quirks.Replace = func(op buckettest.Op, _ string) {
				if op == buckettest.DeleteObject && !changed {
					changed = true
					stock(t, server, "a_1.tar", src, src.layer(9, 1000))
					server.Remove("images/b_1.tar")
				}
			}
			server.SetQuirks(quirks)
			r, err := open(t, server, nil).Prune(t.Context(), &cache.PruneOptions{Count: 1, RemoveNewest: true})
			require.NoError(t, err)
			assert.Equal(t, []string{"b_1.tar", "c_1.tar", "d_1.tar"}, removedOf(r))
			assert.Equal(t, []string{"a_1.tar"}, tarballsOf(server))
			assert.Equal(t, 1, r.Left)
		})
	}
}

// What cannot be removed is in the error, others go in its place, and what is recorded of a use
// may stay.
func TestPruneIsDenied(t *testing.T) {
	server := buckettest.New(t, "bucket")
	stockInOrder(t, server, "a_1.tar", "b_1.tar")
	server.SetQuirks(buckettest.Quirks{Denied: map[buckettest.Op]bool{buckettest.DeleteObject: true}})
	r, err := open(t, server, nil).Prune(t.Context(), &cache.PruneOptions{Count: 1, RemoveNewest: true})
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "s3:DeleteObject")
	assert.Empty(t, r.Removed)
	assert.Equal(t, 2, r.Left)
	assert.Equal(t, 1, r.OverCount)

	server.SetQuirks(buckettest.Quirks{Replace: func(op buckettest.Op, key string) {
		if op == buckettest.DeleteObject && strings.HasSuffix(key, ".tar") { // the next one is denied
			server.SetQuirks(buckettest.Quirks{Denied: map[buckettest.Op]bool{buckettest.DeleteObject: true}})
		}
	}})
	require.NoError(t, open(t, server, nil).Remove(t.Context(), "a_1.tar"))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = open(t, server, nil).Prune(ctx, &cache.PruneOptions{Count: 1})
	require.ErrorIs(t, err, context.Canceled)
}

// Remove removes what is there, and says what is not.
func TestRemove(t *testing.T) {
	for _, quirks := range []buckettest.Quirks{{}, {RefusesConditions: true}, {NoConditions: true}} {
		server := buckettest.New(t, "bucket")
		server.SetQuirks(quirks)
		b := open(t, server, nil)
		stockInOrder(t, server, name)
		require.NoError(t, b.Remove(t.Context(), name))
		assert.Empty(t, server.Objects())
		require.ErrorIs(t, b.Remove(t.Context(), name), fs.ErrNotExist)
		require.ErrorIs(t, b.Remove(t.Context(), "a/b.tar"), cache.ErrInvalidName)
	}
}

// leaveUpload leaves what a writer leaves that was killed.
func leaveUpload(t testing.TB, server *buckettest.Server, name string) {
	t.Helper()
	b, src := open(t, server, nil), newSource()
	ctx, cancel := context.WithCancel(t.Context())
	src.fail = func(v1.Hash, int64, int64) error { cancel(); return errors.New("killed") }
	_, err := b.Put(ctx, name, src.image(t, src.layers(300_000)...), src, nil)
	require.Error(t, err)
}

// Sweep removes old uploads and what is recorded of them, and leaves those that advance, those that are
// new, and what belongs to others.
func TestSweep(t *testing.T) {
	server := buckettest.New(t, "bucket")
	server.PageSize = 2
	names := []string{"a+ b_1.tar", "b%_1.tar", "c_1.tar", "d_1.tar", "e_1.tar"}
	for _, n := range names {
		leaveUpload(t, server, n)
	}
	b := open(t, server, nil)
	other := func(key string) {
		_, err := b.client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &b.name, Key: &key})
		require.NoError(t, err)
	}
	for _, key := range []string{"images/sub/a.tar", "images/other.bin", "a.tar", "images/.hidden"} {
		other(key)
	}
	stockInOrder(t, server, name)
	server.Put("images/."+name+usedKind, nil, nil)
	server.Put("images/.gone_1.tar"+usedKind, nil, nil)
	server.Put("images/.other", nil, nil)
	server.Age(25 * time.Hour)
	server.Put("images/.late_1.tar"+usedKind, nil, nil)
	// That of d advances: its record is written again.
	for _, key := range server.Objects() {
		if strings.HasPrefix(key, "images/.d_1.tar.") {
			raw, _ := server.Object(key)
			server.Put(key, raw, nil)
		}
		if strings.HasPrefix(key, "images/.e_1.tar.") { // that of e may: another version wrote it
			server.Put(key, []byte(`{"version":1000}`), nil)
		}
	}
	leaveUpload(t, server, "new_1.tar")
	other("images/without_a_record_1.tar") // and is new
	objects, uploads := len(server.Objects()), server.Uploads()

	for _, dry := range []bool{true, false} {
		gone, err := b.Sweep(t.Context(), &cache.SweepOptions{DryRun: dry})
		require.NoError(t, err)
		kinds := map[cache.LeftoverKind]int{}
		last := ""
		for _, l := range gone {
			kinds[l.Kind]++
			assert.GreaterOrEqual(t, l.Name, last)
			assert.GreaterOrEqual(t, l.Age, 24*time.Hour)
			last = l.Name
		}
		assert.Equal(t, map[cache.LeftoverKind]int{cache.PartialLeftover: 3, cache.JournalLeftover: 3, cache.MarkLeftover: 1}, kinds)
		if dry {
			assert.Len(t, server.Objects(), objects)
			assert.Equal(t, uploads, server.Uploads())
		}
	}
	assert.Len(t, server.Objects(), objects-4)
	assert.Equal(t, uploads-3, server.Uploads())
	for _, n := range names[:3] {
		for _, key := range server.Objects() {
			assert.NotContains(t, key, n)
		}
	}
	gone, err := b.Sweep(t.Context(), nil)
	require.NoError(t, err)
	assert.Empty(t, gone)
	gone, err = b.Sweep(t.Context(), &cache.SweepOptions{Age: 100 * time.Hour})
	require.NoError(t, err)
	assert.Empty(t, gone)
	server.Age(200 * time.Hour)
	_, err = b.Sweep(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, 4, server.Uploads(), "those of others")
}

// An upload whose record cannot be read may advance, and one whose record is written meanwhile
// does: both stay.
func TestSweepOfWhatIsNotKnown(t *testing.T) {
	server := buckettest.New(t, "bucket")
	leaveUpload(t, server, "a_1.tar")
	var record string
	for _, key := range server.Objects() {
		record = key
	}
	raw, _ := server.Object(record)
	server.Age(48 * time.Hour)
	server.Put(record, raw, nil)
	server.SetQuirks(buckettest.Quirks{Denied: map[buckettest.Op]bool{buckettest.GetObject: true}})
	b := open(t, server, nil)
	gone, err := b.Sweep(t.Context(), nil)
	require.ErrorIs(t, err, fs.ErrPermission)
	assert.Empty(t, gone)
	assert.Equal(t, 1, server.Uploads())

	server.Age(48 * time.Hour)
	server.SetQuirks(buckettest.Quirks{Replace: func(op buckettest.Op, key string) {
		if op == buckettest.DeleteObject {
			server.Put(record, append(raw, ' '), nil)
		}
	}})
	gone, err = b.Sweep(t.Context(), nil)
	require.NoError(t, err)
	assert.Empty(t, gone)
	assert.Equal(t, 1, server.Uploads())
	assert.Equal(t, []string{record}, server.Objects())
}

// What Sweep may not do is in the error, and the rest is done.
func TestSweepIsDenied(t *testing.T) {
	for op, action := range map[buckettest.Op]string{
		buckettest.ListObjectsV2: "s3:ListBucket", buckettest.ListMultipartUploads: "s3:ListBucketMultipartUploads",
		buckettest.AbortMultipartUpload: "s3:AbortMultipartUpload", buckettest.DeleteObject: "s3:DeleteObject",
	} {
		server := buckettest.New(t, "bucket")
		leaveUpload(t, server, "a_1.tar")
		server.Age(48 * time.Hour)
		server.SetQuirks(buckettest.Quirks{Denied: map[buckettest.Op]bool{op: true}})
		_, err := open(t, server, nil).Sweep(t.Context(), nil)
		require.ErrorIs(t, err, fs.ErrPermission)
		require.ErrorContains(t, err, action)
	}
}

// A tarball that was left half stored is stored after a sweep as before.
func TestPutAfterSweep(t *testing.T) {
	server := buckettest.New(t, "bucket")
	leaveUpload(t, server, name)
	server.Age(48 * time.Hour)
	b := open(t, server, nil)
	gone, err := b.Sweep(t.Context(), nil)
	require.NoError(t, err)
	assert.Len(t, gone, 2)
	src := newSource()
	img := src.image(t, src.layers(300_000)...)
	_, err = b.Put(t.Context(), name, img, src, nil)
	require.NoError(t, err)
	requireObject(t, server, name, img, src.Blobs, tarball.Provenance{})
	requireNothingLeft(t, server)
}
