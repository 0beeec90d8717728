package bucket

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

// What a server does wrong now and then costs another request, and no byte of the source.
func TestPutSurvives(t *testing.T) {
	ops := func(n int, ops ...buckettest.Op) map[buckettest.Op]int {
		m := map[buckettest.Op]int{}
		for _, op := range ops {
			m[op] = n
		}
		return m
	}
	for name, quirks := range map[string]buckettest.Quirks{
		"SlowDown":                    {SlowDown: ops(1, buckettest.HeadObject, buckettest.CreateMultipartUpload, buckettest.UploadPart, buckettest.CompleteMultipartUpload)},
		"InternalError":               {InternalError: ops(1, buckettest.GetObject, buckettest.ListObjectsV2, buckettest.UploadPartCopy, buckettest.DeleteObject, buckettest.PutObject)},
		"ErrorIn200":                  {ErrorIn200: ops(1, buckettest.UploadPartCopy, buckettest.CompleteMultipartUpload)},
		"a part is cut":               {CutPart: 2},
		"the answer to a part":        {LoseAnswer: ops(2, buckettest.UploadPart)},
		"the answer to the beginning": {LoseAnswer: ops(1, buckettest.CreateMultipartUpload)},
		"the answer to the end":       {LoseAnswer: ops(1, buckettest.CompleteMultipartUpload)},
		"the same, completed again":   {LoseAnswer: ops(1, buckettest.CompleteMultipartUpload), CompletedAgain: true},
		"a conflict":                  {ConflictOnComplete: 1},
		"a conflict ends the upload":  {ConflictOnComplete: 1, ConflictEndsUpload: true},
		"what is read of another is cut": {CutGet: 10_000, Only: func(r buckettest.Request) bool {
			return r.Key == "images/base_main.tar" && !strings.HasPrefix(r.Header.Get("Range"), "bytes=0-")
		}},
		"ETags are no MD5": {OpaqueETags: true},
		"no checksums":     {NoChecksums: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := buckettest.New(t, "bucket")
			b, src := open(t, server, nil), newSource()
			base := src.layers(300_000, 90_000)
			_, err := b.Put(t.Context(), "base_main.tar", src.image(t, base...), src, nil)
			require.NoError(t, err)
			require.NoError(t, b.checkConditions(t.Context(), "base_main.tar"))
			if name == "the answer to the end" || name == "the same, completed again" { // not that of the check
				quirks.Only = func(r buckettest.Request) bool { return r.Key == "images/name_main.tar" }
			}
			server.SetQuirks(quirks)
			b = open(t, server, nil)
			img := src.image(t, append(base[:2:2], src.layer(9, 500_000))...)
			result, err := b.Put(t.Context(), "name_main.tar", img, src, nil)
			require.NoError(t, err)
			assert.Equal(t, cache.Stocked, result.Outcome)
			if quirks.CutGet > 0 {
				assert.Greater(t, server.Happened("CutGet"), 1)
			}
			if quirks.ConflictOnComplete == 0 {
				assert.Equal(t, int64(500_000), tarballtest.Once(result))
			}
			requireObject(t, server, "name_main.tar", img, src.Blobs, tarball.Provenance{})
		})
	}
}

// Nothing appears when the server refuses something, and the error names what is missing.
func TestPutIsDenied(t *testing.T) {
	for op, action := range map[buckettest.Op]string{
		buckettest.HeadObject: "s3:GetObject", buckettest.CreateMultipartUpload: "s3:PutObject", buckettest.UploadPart: "s3:PutObject",
		buckettest.CompleteMultipartUpload: "s3:PutObject", buckettest.PutObject: "s3:PutObject", buckettest.UploadPartCopy: "s3:PutObject, and s3:GetObject of the source",
	} {
		server := buckettest.New(t, "bucket")
		src := newSource()
		base := src.layers(200_000)
		_, err := open(t, server, nil).Put(t.Context(), "base_main.tar", src.image(t, base...), src, nil)
		require.NoError(t, err)
		server.SetQuirks(buckettest.Quirks{Denied: map[buckettest.Op]bool{op: true}})
		_, err = open(t, server, nil).Put(t.Context(), name, src.image(t, base[0], src.layer(1, 100_000)), src, nil)
		require.ErrorContains(t, err, "the credentials need "+action, op)
		require.ErrorIs(t, err, fs.ErrPermission, op)
		requireNoSecrets(t, err)
		_, is := server.Object("images/" + name)
		assert.False(t, is)
	}
}

// Where conditions are ignored that is noticed before anything is overwritten.
func TestServerWithoutConditions(t *testing.T) {
	for name, quirks := range map[string]buckettest.Quirks{
		"none": {NoConditions: true}, "no If-Match": {IgnoresIfMatch: true}, "refused": {RefusesConditions: true},
	} {
		t.Run(name, func(t *testing.T) {
			server := buckettest.New(t, "bucket")
			src := newSource()
			server.Put("images/name_main.tar", []byte("precious"), nil)
			server.SetQuirks(quirks)
			img := src.image(t, src.layers(200_000)...)
			_, err := open(t, server, nil).Put(t.Context(), "name_main.tar", img, src, nil)
			require.ErrorIs(t, err, ErrNoConditions)
			got, _ := server.Object("images/name_main.tar")
			assert.Equal(t, "precious", string(got))
			_, err = open(t, server, &Options{Unconditional: true}).Put(t.Context(), "name_main.tar", img, src, nil)
			require.NoError(t, err)
			requireObject(t, server, "name_main.tar", img, src.Blobs, tarball.Provenance{})
			requireNothingLeft(t, server)
		})
	}
}

// What is not allowed when an upload is gone on with is named too, and what was stored stays.
func TestResumeIsDenied(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	img := src.image(t, src.layers(1<<20)...)
	killedAt(t, server, img, src, 700_000, nil)
	server.SetQuirks(buckettest.Quirks{Denied: map[buckettest.Op]bool{buckettest.ListParts: true}})
	_, err := open(t, server, nil).Put(t.Context(), name, img, src, nil)
	require.ErrorContains(t, err, "the credentials need s3:ListMultipartUploadParts")
	assert.Equal(t, 1, server.Uploads())
}

// A bucket that is removed in the middle is named, and not tried again and again.
func TestBucketIsRemoved(t *testing.T) {
	for _, at := range []buckettest.Op{buckettest.CreateMultipartUpload, buckettest.UploadPart} {
		server := buckettest.New(t, "bucket")
		src := newSource()
		b := open(t, server, nil)
		server.Put("images/.probe", nil, nil)
		require.NoError(t, b.checkConditions(t.Context(), ".probe"))
		server.SetQuirks(buckettest.Quirks{Replace: func(op buckettest.Op, _ string) {
			if op == at {
				server.SetQuirks(buckettest.Quirks{NoBucket: true})
			}
		}})
		_, err := b.Put(t.Context(), name, src.image(t, src.layers(300_000)...), src, nil)
		require.ErrorContains(t, err, "create the bucket", at)
		require.NotErrorIs(t, err, fs.ErrNotExist)
		assert.Less(t, server.Count(at), 10)
	}
}

// wrongBytes returns a source that gives wrong bytes of a layer so many times: the last byte is
// another.
func wrongBytes(src *source, layer v1.Descriptor, times int) tarball.Source {
	var given atomic.Int64
	return cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, offset, n int64) (io.ReadCloser, error) {
		r, err := src.ReadRange(ctx, d, offset, n)
		if d != layer.Digest || offset+n < layer.Size || given.Add(1) > int64(times) || err != nil {
			return r, err
		}
		raw, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		raw = slices.Clone(raw)
		raw[len(raw)-1] ^= 1
		return cachetest.Blobs{d: raw}.ReadRange(ctx, d, 0, n)
	})
}

// A layer that is wrong once is fetched again, also when parts of it, and of the layer before
// in the same part, are stored by then.
func TestWrongBytesOnce(t *testing.T) {
	for _, sizes := range [][]int{{500_000}, {30_000, 500_000}, {150_000, 500_000, 30_000}, {70_000, 1000, 500_000, 500_000}} {
		for i := range sizes {
			server := buckettest.New(t, "bucket")
			b, src := open(t, server, nil), newSource()
			layers := src.layers(sizes...)
			img := src.image(t, layers...)
			result, err := b.Put(t.Context(), name, img, wrongBytes(src, layers[i], 1), nil)
			require.NoError(t, err, "%v %d", sizes, i)
			assert.Equal(t, cache.Stocked, result.Outcome)
			requireObject(t, server, name, img, src.Blobs, tarball.Provenance{})
			requireNothingLeft(t, server)
		}
	}
}

func TestWrongBytesAlways(t *testing.T) {
	server := buckettest.New(t, "bucket")
	b, src := open(t, server, nil), newSource()
	layers := src.layers(500_000)
	_, err := b.Put(t.Context(), name, src.image(t, layers...), wrongBytes(src, layers[0], 1000), nil)
	require.ErrorIs(t, err, tarball.ErrDigest)
	assert.Empty(t, server.Objects())
	requireNothingLeft(t, server)
}

var errKilled = errors.New("killed")

// What an attempt has stored is not fetched again, wherever it was ended, nor is what it had
// copied; and the tarball is right.
func TestResume(t *testing.T) {
	const size = 4 << 20
	for _, at := range []int64{0, 70_000, 600_000, 1 << 20, 3 << 20, 4 << 20, 4_400_000} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			server := buckettest.New(t, "bucket")
			src := newSource()
			base := src.layers(300_000)
			_, err := open(t, server, nil).Put(t.Context(), "base_main.tar", src.image(t, base...), src, nil)
			require.NoError(t, err)
			img := src.image(t, base[0], src.layer(1, size), src.layer(2, 400_000))
			before := src.total()
			ctx, cancel := context.WithCancelCause(t.Context())
			src.slow = func(context.Context, v1.Hash, int64, int64) {
				if src.total()-before >= at {
					cancel(errKilled)
				}
			}
			b := open(t, server, nil)
			b.saveStep, b.options.Memory = 256<<10, 2<<20
			first, err := b.Put(ctx, name, img, src, nil)
			require.Error(t, err)
			src.slow = nil
			read := tarballtest.Once(first)
			b = open(t, server, nil)
			result, err := b.Put(t.Context(), name, img, src, nil)
			require.NoError(t, err)
			requireObject(t, server, name, img, src.Blobs, tarball.Provenance{})
			requireNothingLeft(t, server)
			again := tarballtest.Once(result) - (size + 400_000 - read)
			t.Logf("%d bytes had been read, %d were resumed, %d came again", read, result.Resumed, again)
			assert.Equal(t, int64(size+400_000), result.Resumed+tarballtest.Once(result))
			assert.LessOrEqual(t, again, int64(1200<<10), "what was in memory, and since the last record")
		})
	}
}

// An upload whose parts have another checksum is begun again: the server would refuse the others.
func TestResumeWithAnotherChecksum(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	img := src.image(t, src.layers(1<<20)...)
	killedAt(t, server, img, src, 700_000, nil)
	b := open(t, server, &Options{Checksum: "CRC64NVME"})
	result, err := b.Put(t.Context(), name, img, src, nil)
	require.NoError(t, err)
	assert.Zero(t, result.Resumed)
	requireObject(t, server, name, img, src.Blobs, tarball.Provenance{})
	requireNothingLeft(t, server)
}

// killedAt begins to store an image, is ended when so many bytes of the source were read, and
// returns the key of what is recorded.
func killedAt(t *testing.T, server *buckettest.Server, img *tarball.Image, src *source, at int64, o *cache.PutOptions) (key string, record map[string]any) {
	t.Helper()
	key = killedWith(t, open(t, server, nil), img, src, at, o)
	raw, ok := server.Object(key)
	require.True(t, ok)
	require.NoError(t, json.Unmarshal(raw, &record))
	return key, record
}

func killedWith(t *testing.T, b *Bucket, img *tarball.Image, src *source, at int64, o *cache.PutOptions) (key string) {
	t.Helper()
	b.saveStep, b.options.Memory = 64<<10, 2<<20
	ctx, cancel := context.WithCancelCause(t.Context())
	before := src.total()
	src.slow = func(context.Context, v1.Hash, int64, int64) {
		if src.total()-before > at {
			cancel(errKilled)
		}
	}
	_, err := b.Put(ctx, name, img, src, o)
	require.Error(t, err)
	src.slow = nil
	return "images/" + pendingName(name, img.Digest())
}

// What is recorded of an upload may be anything.
func TestHostileRecord(t *testing.T) {
	src := newSource()
	layers := src.layers(1<<20, 300_000)
	img := src.image(t, layers...)
	h := sha256.New()
	h.Write(make([]byte, 70_000))
	wrong, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	require.NoError(t, err)
	other := []any{map[string]any{"from": 0, "to": 500_000, "origin": map[string]any{"key": "images/none.tar", "etag": "x"}}}
	for field, values := range map[string][]any{
		"offset": {-1, 1, 1 << 40, 65536}, "n": {-5, 0, 1 << 50}, "state": {nil, "AAAA", wrong}, "part": {0, 1, 50, 1 << 40}, "copied_part": {1, 41 << 10},
		"least_part": {0, 1}, "layer": {"", "sha256:00", img.Digest().String()}, "upload": {"", "gone", "new"},
		"spans": {[]any{map[string]any{"from": 0, "to": 1 << 40}}, []any{map[string]any{"from": 100, "to": 50}}, other, "real"},
		"plan":  {"", "x"}, "version": {2},
	} {
		for _, v := range values {
			t.Run(fmt.Sprint(field, v), func(t *testing.T) {
				t.Parallel()
				server := buckettest.New(t, "bucket")
				src := &source{Blobs: src.Blobs, read: map[v1.Hash]int64{}}
				key, record := killedAt(t, server, img, src, 700_000, nil)
				b := open(t, server, nil)
				if record[field] = v; v == "new" {
					created, err := b.client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &b.name, Key: b.key(name)})
					require.NoError(t, err)
					record[field] = *created.UploadId
				}
				if v == "real" {
					server.Put("images/other.tar", make([]byte, 600_000), nil)
					record[field] = []any{map[string]any{"from": 0, "to": 500_000, "origin": map[string]any{"key": "images/other.tar", "etag": server.ETag("images/other.tar")}}}
					record["offset"] = 0
				}
				content, _ := json.Marshal(record)
				server.Put(key, content, nil)
				_, err := b.Put(t.Context(), name, img, src, nil)
				require.NoError(t, err)
				requireObject(t, server, name, img, src.Blobs, tarball.Provenance{})
			})
		}
	}
}

// What an attempt of another run has left is not gone on with: the run is in the tarball.
func TestResumeOfAnotherRun(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	img := src.image(t, src.layers(1<<20)...)
	run := func(id int64) *cache.PutOptions {
		return &cache.PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: id}}}
	}
	killedAt(t, server, img, src, 700_000, run(1))
	_, err := open(t, server, nil).Put(t.Context(), name, img, src, run(2))
	require.NoError(t, err)
	requireObject(t, server, name, img, src.Blobs, run(2).Provenance)
	o, err := open(t, server, nil).head(t.Context(), name)
	require.NoError(t, err)
	assert.EqualValues(t, 2, o.run.ID)
}

// Of two writers with different runs the newer run's tarball stays.
func TestTwoWriters(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	writers := []*Bucket{open(t, server, nil), open(t, server, nil)}
	server.Put("images/.probe", nil, nil)
	for _, b := range writers {
		require.NoError(t, b.checkConditions(t.Context(), ".probe"))
	}
	for round := range 200 {
		imgs := []*tarball.Image{src.image(t, src.layer(byte(round), 1000+round)), src.image(t, src.layer(byte(round), 2000+round))}
		newer := round % 2
		var group sync.WaitGroup
		for i, b := range writers {
			group.Go(func() {
				run := tarball.Run{ID: int64(2*round + 1)}
				if i == newer {
					run.ID++
				}
				_, err := b.Put(t.Context(), name, imgs[i], src, &cache.PutOptions{Provenance: tarball.Provenance{Run: run}})
				assert.NoError(t, err)
			})
		}
		group.Wait()
		got, err := writers[0].Get(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, imgs[newer].Digest(), got.Image.Digest(), "round %d", round)
		require.NoError(t, got.Close())
	}
}

// Images that one process stores at the same time share what they fetch.
func TestLayersInFlight(t *testing.T) {
	server := buckettest.New(t, "bucket")
	b, src := open(t, server, &Options{Uploads: 4, Memory: 256 << 20}), newSource()
	base := src.layers(500_000, 300_000)
	var group sync.WaitGroup
	var got atomic.Int64
	imgs := make([]*tarball.Image, 4)
	for i := range imgs {
		imgs[i] = src.image(t, append(base[:2:2], src.layer(byte(i), 50_000))...)
		group.Go(func() {
			result, err := b.Put(t.Context(), fmt.Sprintf("name%d_main.tar", i), imgs[i], src, nil)
			assert.NoError(t, err)
			got.Add(tarballtest.Once(result))
		})
	}
	group.Wait()
	assert.Equal(t, int64(800_000+4*50_000), got.Load())
	for i, img := range imgs {
		requireObject(t, server, fmt.Sprintf("name%d_main.tar", i), img, src.Blobs, tarball.Provenance{})
	}
	requireNothingLeft(t, server)
}

// What another stores just before the end is not overwritten.
func TestAnotherIsStoredJustBefore(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	newer, older := src.image(t, src.layers(100_000)...), src.image(t, src.layer(7, 120_000))
	run := func(id int64) *cache.PutOptions {
		return &cache.PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: id}}}
	}
	_, err := open(t, server, nil).Put(t.Context(), "elsewhere_main.tar", newer, src, run(2))
	require.NoError(t, err)
	content, _ := server.Object("images/elsewhere_main.tar")
	metadata := server.Metadata("images/elsewhere_main.tar")
	server.SetQuirks(buckettest.Quirks{Replace: func(op buckettest.Op, key string) {
		if op == buckettest.CompleteMultipartUpload && key == "images/"+name {
			server.Put(key, content, metadata)
		}
	}})
	result, err := open(t, server, nil).Put(t.Context(), name, older, src, run(1))
	require.NoError(t, err)
	assert.Equal(t, cache.Superseded, result.Outcome)
	requireObject(t, server, name, newer, src.Blobs, run(2).Provenance)
	requireNothingLeft(t, server)
}

// A server that would copy from whatever is there by now copies nothing: layers come from the source.
func TestServerWithoutConditionsOfCopies(t *testing.T) {
	for _, o := range []Options{{}, {Unconditional: true}} {
		server := buckettest.New(t, "bucket")
		src := newSource()
		base := src.layers(1_000_000)
		_, err := open(t, server, nil).Put(t.Context(), "base_main.tar", src.image(t, base...), src, nil)
		require.NoError(t, err)
		server.SetQuirks(buckettest.Quirks{IgnoresIfMatchOnRead: true})
		b := open(t, server, &o)
		for _, name := range []string{"first_main.tar", "second_main.tar"} {
			img := src.image(t, base[0], src.layer(byte(len(name)), 100_000))
			result, err := b.Put(t.Context(), name, img, src, nil)
			require.NoError(t, err)
			assert.Zero(t, result.Copied)
			requireObject(t, server, name, img, src.Blobs, tarball.Provenance{})
			requireNothingLeft(t, server)
		}
		assert.Equal(t, 1, server.Count(buckettest.UploadPartCopy), "it is found out once")
	}
}

// An object that is replaced while it is copied from is not copied from.
func TestCopiedObjectIsReplaced(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	base := src.layers(1_000_000)
	_, err := open(t, server, nil).Put(t.Context(), "base_main.tar", src.image(t, base...), src, nil)
	require.NoError(t, err)
	for _, c := range []struct {
		at     buckettest.Op
		quirks buckettest.Quirks
	}{
		{buckettest.UploadPartCopy, buckettest.Quirks{}}, {buckettest.GetObject, buckettest.Quirks{}},
		{buckettest.UploadPartCopy, buckettest.Quirks{IgnoresIfMatchOnRead: true}}, {buckettest.GetObject, buckettest.Quirks{IgnoresIfMatchOnRead: true}},
	} {
		at := c.at
		var once sync.Once
		var seen atomic.Int64
		c.quirks.Replace = func(op buckettest.Op, key string) {
			if op != at {
				return
			}
			if n := seen.Add(1); at == buckettest.GetObject && n < 3 { // the records of an upload, and the beginning
				return
			}
			once.Do(func() { server.Put("images/base_main.tar", make([]byte, 1_100_000), nil) })
		}
		server.SetQuirks(c.quirks)
		img := src.image(t, base[0], src.layer(byte(len(at)), 100_000))
		_, err = open(t, server, nil).Put(t.Context(), name, img, src, nil)
		require.NoError(t, err)
		requireObject(t, server, name, img, src.Blobs, tarball.Provenance{})
		server.SetQuirks(buckettest.Quirks{})
		requireNothingLeft(t, server)
		server.Remove("images/base_main.tar")
		server.Remove("images/" + name)
		_, err = open(t, server, nil).Put(t.Context(), "base_main.tar", src.image(t, base...), src, nil)
		require.NoError(t, err)
	}
}
