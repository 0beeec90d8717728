package bucket

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/tarball"
)

// useAll makes each kind of request that a bucket makes.
func useAll(t *testing.T, server *buckettest.Server, o *Options) {
	t.Helper()
	src := newSource()
	base := src.layers(1<<20, 300_000)
	img := src.image(t, base...)
	run := func(id int64) *cache.PutOptions {
		return &cache.PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: id}}}
	}
	killed := *o
	killedWith(t, open(t, server, &killed), img, src, 700_000, run(1))
	b := open(t, server, o)
	for _, put := range []struct {
		img *tarball.Image
		run int64
	}{{img, 1}, {img, 2}, {src.image(t, append(base[:2:2], src.layer(9, 200_000))...), 3}} { // goes on; the run alone is newer; a refresh
		_, err := b.Put(t.Context(), name, put.img, src, run(put.run))
		require.NoError(t, err)
	}
	results, err := b.Verify(t.Context(), nil, nil)
	require.NoError(t, err)
	require.NoError(t, results[0].Err)
	server.Age(48 * time.Hour)
	require.NoError(t, b.Touch(t.Context(), name))
	_, err = b.Prune(t.Context(), &cache.PruneOptions{MaxBytes: 1, RemoveNewest: true})
	require.NoError(t, err)
}

// What is written is encrypted as the options say, tarballs have the storage class and the tags,
// and each request says who pays.
func TestWrittenAsTheOptionsSay(t *testing.T) {
	const (
		encryption = "X-Amz-Server-Side-Encryption"
		key        = "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"
		class      = "X-Amz-Storage-Class"
		tagging    = "X-Amz-Tagging"
		payer      = "X-Amz-Request-Payer"
	)
	for _, o := range []Options{
		{},
		{Encryption: "AES256"},
		{Encryption: "aws:kms", KMSKey: "arn:aws:kms:us-east-1:1:key/a", StorageClass: "STANDARD_IA", Tags: map[string]string{"team": "a b&c", "cost": "1"}, RequesterPays: true},
	} {
		server := buckettest.New(t, "bucket")
		useAll(t, server, &o)
		seen := map[buckettest.Op]int{}
		for _, r := range server.Requests() {
			seen[r.Op]++
			isTarball := !strings.Contains(r.Key, "/.")
			want := map[string]string{}
			if o.RequesterPays {
				want[payer] = "requester"
			}
			if r.Op == buckettest.CreateMultipartUpload || r.Op == buckettest.PutObject {
				want[encryption], want[key] = o.Encryption, o.KMSKey
			}
			if r.Op == buckettest.CreateMultipartUpload && isTarball {
				want[class] = o.StorageClass
				if len(o.Tags) > 0 {
					want[tagging] = url.Values{"team": {"a b&c"}, "cost": {"1"}}.Encode()
				}
			}
			for _, name := range []string{encryption, key, class, tagging, payer} {
				assert.Equal(t, want[name], r.Header.Get(name), "%s of %s %s", name, r.Op, r.Key)
			}
		}
		for _, op := range []buckettest.Op{
			buckettest.HeadObject, buckettest.GetObject, buckettest.PutObject, buckettest.DeleteObject, buckettest.ListObjectsV2, buckettest.CreateMultipartUpload, buckettest.UploadPart,
			buckettest.UploadPartCopy, buckettest.ListParts, buckettest.ListMultipartUploads, buckettest.CompleteMultipartUpload, buckettest.AbortMultipartUpload,
		} {
			assert.Positive(t, seen[op], op)
		}
	}
}

// When only the run is newer the object stays as it was stored, by whatever options.
func TestNewRunKeepsHowItIsStored(t *testing.T) {
	kms := &Options{Encryption: "aws:kms", KMSKey: "key", StorageClass: "STANDARD_IA", Tags: map[string]string{"team": "a b&c", "cost": "1"}}
	for about, c := range map[string]struct {
		first, second *Options
		want          http.Header
	}{
		"none said":        {kms, nil, http.Header{"X-Amz-Server-Side-Encryption": {"aws:kms"}, "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": {"key"}, "X-Amz-Storage-Class": {"STANDARD_IA"}, "X-Amz-Tagging": {"cost=1&team=a+b%26c"}}},
		"others said":      {kms, &Options{Encryption: "AES256", StorageClass: "GLACIER_IR", Tags: map[string]string{"x": "y"}}, http.Header{"X-Amz-Server-Side-Encryption": {"AES256"}, "X-Amz-Storage-Class": {"GLACIER_IR"}, "X-Amz-Tagging": {"x=y"}}},
		"the bucket's own": {&Options{Encryption: "AES256"}, nil, http.Header{}},
	} {
		server := buckettest.New(t, "bucket")
		src := newSource()
		img := src.image(t, src.layers(100_000)...)
		for i, o := range []*Options{c.first, c.second} {
			result, err := open(t, server, o).Put(t.Context(), name, img, src, &cache.PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: int64(i + 1)}}})
			require.NoError(t, err)
			assert.Equal(t, []cache.Outcome{cache.Stocked, cache.Unchanged}[i], result.Outcome)
		}
		c.want.Set("Content-Type", "application/x-tar")
		assert.Equal(t, c.want, server.Header("images/"+name), about)
		assert.EqualValues(t, 2, identityOf(server.Metadata("images/"+name)).run.ID)
		requireObject(t, server, name, img, src.Blobs, tarball.Provenance{Run: tarball.Run{ID: 1}})
	}
}

// Options that cannot be meant are refused before any request.
func TestBadOptions(t *testing.T) {
	many := map[string]string{}
	for _, k := range strings.Split("a b c d e f g h i j k", " ") {
		many[k] = ""
	}
	for want, o := range map[string]Options{
		"Options.Memory": {Memory: 1}, "Options.Uploads": {Uploads: -1}, "Options.Checksum": {Checksum: "MD5"},
		"Options.Encryption": {Encryption: "rot13"}, "Options.KMSKey needs": {Encryption: "AES256", KMSKey: "k"}, "S3 allows 10": {Tags: many},
	} {
		_, err := Open(t.Context(), "s3://bucket", &o)
		require.ErrorContains(t, err, want)
	}
}

// The permission that tags need is named.
func TestTagsAreDenied(t *testing.T) {
	server := buckettest.New(t, "bucket")
	server.SetQuirks(buckettest.Quirks{Denied: map[buckettest.Op]bool{buckettest.CreateMultipartUpload: true}})
	src := newSource()
	_, err := open(t, server, &Options{Tags: map[string]string{"a": "b"}}).Put(t.Context(), name, src.image(t, src.layers(1000)...), src, nil)
	require.ErrorContains(t, err, "s3:PutObjectTagging")
}

// Keys may have all characters that names of tarballs and prefixes can have.
func TestOddKeys(t *testing.T) {
	const prefix, odd = "a b+c/%2F&=?#é~'\"(1)", "naïve +%25&=?;'\"~_main.tar"
	server := buckettest.New(t, "bucket")
	src := newSource()
	base := src.layers(1<<20, 200_000)
	odds := func() *Bucket {
		b := open(t, server, nil)
		b.prefix = prefix + "/"
		return b
	}
	b := odds()
	_, err := b.Put(t.Context(), odd, src.image(t, base...), src, &cache.PutOptions{Group: "ä/+ %"})
	require.NoError(t, err)
	next := "next " + odd
	img := src.image(t, append(base[:2:2], src.layer(9, 300_000))...)
	result, err := odds().Put(t.Context(), next, img, src, nil)
	require.NoError(t, err)
	assert.EqualValues(t, 1<<20+200_000, result.Copied)
	entries, err := b.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{odd, next}, namesOf(entries))
	assert.Equal(t, "ä/+ %", entries[0].Group)
	results, err := b.Verify(t.Context(), nil, nil)
	require.NoError(t, err)
	for _, r := range results {
		require.NoError(t, r.Err)
	}
	server.Age(48 * time.Hour)
	require.NoError(t, b.Touch(t.Context(), odd))
	pruned, err := b.Prune(t.Context(), &cache.PruneOptions{MaxBytes: 1, RemoveNewest: true})
	require.NoError(t, err)
	assert.Len(t, pruned.Removed, 2)
	assert.Empty(t, server.Objects())
	parsed, err := Open(t.Context(), "s3://bucket/"+prefix, &Options{})
	require.NoError(t, err)
	assert.Equal(t, prefix+"/", parsed.prefix)
}

// Nothing that is logged has credentials, whatever fails.
func TestLogHasNoSecrets(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, quirks := range []buckettest.Quirks{
		{Denied: map[buckettest.Op]bool{buckettest.ListObjectsV2: true, buckettest.DeleteObject: true}},
		{Denied: map[buckettest.Op]bool{buckettest.PutObject: true}}, {Denied: map[buckettest.Op]bool{buckettest.UploadPart: true, buckettest.AbortMultipartUpload: true}},
		{NoBucket: true}, {NoConditions: true}, {ExpireAfter: 1}, {WrongRegion: "a@b"},
	} {
		server := buckettest.New(t, "bucket")
		src := newSource()
		stock(t, server, name, src, src.layers(100_000)...)
		server.Age(48 * time.Hour)
		server.SetQuirks(quirks)
		for _, do := range verbs(t, src) {
			if err := do(open(t, server, &Options{Logger: log})); err != nil {
				requireNoSecrets(t, err)
			}
		}
	}
	assert.NotEmpty(t, out.String())
	for _, secret := range []string{buckettest.AccessKeyID, buckettest.SecretAccessKey, "Signature", "AWS4-HMAC"} {
		assert.NotContains(t, out.String(), secret)
	}
}
