package bucket

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	registryname "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/server"
	"github.com/dockercache/dockercache/cache/tarball"
)

// What a tarball of a directory can be used for, one of a bucket can too: as an archive, as an
// image of go-containerregistry, and by a registry.
func TestGet(t *testing.T) {
	s3 := buckettest.New(t, "bucket")
	src := newSource()
	layers := []v1.Descriptor{src.Add(cachetest.Gzip(cachetest.Noise(1, 300_000))), src.Add(cachetest.Gzip(nil)), src.Add(cachetest.Gzip(cachetest.Noise(2, 5000)))}
	raw := stock(t, s3, name, src, layers...)
	file := get(t, open(t, s3, nil), name)
	assert.Equal(t, "s3://bucket/images/"+name, file.Name())

	archive, err := file.Archive(nil)
	require.NoError(t, err)
	assert.False(t, archive.IsLocal())
	for _, open := range []func(context.Context) io.ReadCloser{archive.Open, archive.OpenUnverified} {
		r := open(t.Context())
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.True(t, bytes.Equal(raw, got))
	}
	require.NoError(t, archive.Verify(t.Context()))

	check := func(img v1.Image) {
		t.Helper()
		digest, err := img.Digest()
		require.NoError(t, err)
		assert.Equal(t, file.Image.Digest(), digest)
		all, err := img.Layers()
		require.NoError(t, err)
		require.Len(t, all, len(layers))
		for i, l := range all {
			r, err := l.Compressed()
			require.NoError(t, err)
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			require.NoError(t, r.Close())
			require.True(t, bytes.Equal(src.Blobs[layers[i].Digest], got))
		}
	}
	img, err := file.V1()
	require.NoError(t, err)
	check(img)

	registry := httptest.NewServer(server.NewSingle(file, "own", "t", nil))
	defer registry.Close()
	at, err := url.Parse(registry.URL)
	require.NoError(t, err)
	ref, err := registryname.ParseReference(at.Host + "/own:t")
	require.NoError(t, err)
	pulled, err := remote.Image(ref)
	require.NoError(t, err)
	check(pulled)
}

// What is not there, and what is no tarball, is said.
func TestGetOfOthers(t *testing.T) {
	server := buckettest.New(t, "bucket")
	b, src := open(t, server, nil), newSource()
	for _, bad := range []string{"", "a", ".a.tar", "a/b.tar", "a.tar.gz"} {
		_, err := b.Get(t.Context(), bad)
		require.ErrorIs(t, err, cache.ErrInvalidName, bad)
	}
	assert.Empty(t, server.Requests())
	_, err := b.Get(t.Context(), name)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotErrorIs(t, err, tarball.ErrNotTarball)

	raw := stock(t, server, name, src, src.layers(100_000, 5)...)
	changed := bytes.Clone(raw)
	changed[1000] ^= 1
	for about, content := range map[string][]byte{
		"empty": {}, "one byte": {1}, "text": []byte(strings.Repeat("no tarball ", 20_000)), "zeros": make([]byte, 200_000),
		"without its end": raw[:len(raw)-1], "with a byte more": append(bytes.Clone(raw), 0), "a part of the beginning": raw[:2000],
		"another beginning": changed,
	} {
		server.Put("images/"+name, content, server.Metadata("images/"+name)) // its metadata says that it is one
		_, err := b.Get(t.Context(), name)
		require.ErrorIs(t, err, tarball.ErrNotTarball, about)
		results, err := b.Verify(t.Context(), nil, nil)
		require.NoError(t, err)
		require.ErrorIs(t, results[0].Err, tarball.ErrNotTarball, about)
		assert.Nil(t, results[0].Info)
	}
}

// Verify finds each wrong byte, and names the layers.
func TestVerify(t *testing.T) {
	server := buckettest.New(t, "bucket")
	b, src := open(t, server, nil), newSource()
	layers := src.layers(100_000, 0, 50_000)
	raw := stock(t, server, "a_main.tar", src, layers...)
	stock(t, server, "b_main.tar", src, layers[2])
	stock(t, server, "c_main.tar", src, layers...)
	server.Put("images/sub/d_main.tar", raw, nil)
	server.Put("images/.hidden.tar", raw, nil)
	layout := get(t, b, "a_main.tar").Layout
	last := layout.Layers()[2]

	damage := func(at int64) {
		wrong := bytes.Clone(raw)
		wrong[at] ^= 1
		server.Put("images/a_main.tar", wrong, nil)
	}
	damage(last.Offset + last.Length - 1)
	var progress []tarball.Progress
	results, err := b.Verify(t.Context(), nil, &cache.VerifyOptions{Parallel: 2, Progress: func(p tarball.Progress) { progress = append(progress, p) }})
	require.NoError(t, err)
	require.Len(t, results, 3)
	for i, n := range []string{"a_main.tar", "b_main.tar", "c_main.tar"} {
		assert.Equal(t, n, results[i].Name)
		assert.NotNil(t, results[i].Info)
	}
	require.ErrorIs(t, results[0].Err, tarball.ErrDigest)
	assert.Equal(t, []v1.Hash{layers[2].Digest}, results[0].Damaged)
	require.NoError(t, results[1].Err)
	require.NoError(t, results[2].Err)
	end := progress[len(progress)-1]
	assert.Equal(t, end.Total, end.Done)
	assert.Greater(t, end.Total, 2*int64(len(raw)))

	damage(last.Offset - 100) // between the layers
	results, err = b.Verify(t.Context(), []string{"a_main.tar", "none.tar", "b/ad"}, nil)
	require.NoError(t, err)
	require.ErrorIs(t, results[0].Err, tarball.ErrNotTarball)
	assert.Empty(t, results[0].Damaged)
	require.ErrorIs(t, results[1].Err, fs.ErrNotExist)
	require.ErrorIs(t, results[2].Err, cache.ErrInvalidName)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.Verify(ctx, nil, nil)
	require.ErrorIs(t, err, context.Canceled)
}

// Of a tarball that is replaced while it is verified, the one in its place is verified.
func TestVerifyOfAReplaced(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	stock(t, server, name, src, src.layers(200_000, 100_000)...)
	other := src.layer(9, 150_000)
	gets := 0
	server.SetQuirks(buckettest.Quirks{Replace: func(op buckettest.Op, _ string) {
		if op == buckettest.GetObject {
			if gets++; gets == 2 {
				stock(t, server, name, src, other)
			}
		}
	}})
	var last tarball.Progress
	results, err := open(t, server, nil).Verify(t.Context(), []string{name}, &cache.VerifyOptions{Progress: func(p tarball.Progress) { last = p }})
	require.NoError(t, err)
	require.NoError(t, results[0].Err)
	assert.Equal(t, other.Digest, results[0].Info.Image.Layers()[0].Digest)
	assert.Equal(t, results[0].Info.Layout.Size(), last.Done)

	// One that is removed is not there.
	gets = 0
	server.SetQuirks(buckettest.Quirks{Replace: func(op buckettest.Op, key string) {
		if gets++; gets == 2 {
			server.Remove(key)
		}
	}})
	results, err = open(t, server, nil).Verify(t.Context(), []string{name}, nil)
	require.NoError(t, err)
	require.ErrorIs(t, results[0].Err, fs.ErrNotExist)
}

// Metadata may say anything. What is opened is what the bytes are, and Verify tells.
func TestMetadataThatLies(t *testing.T) {
	server := buckettest.New(t, "bucket")
	b, src := open(t, server, nil), newSource()
	img, other := src.image(t, src.layers(100_000)...), src.image(t, src.layer(9, 1000))
	truth := identity{digest: img.Digest(), reference: img.Reference()}
	for about, lie := range map[string]func(i *identity){
		"digest":    func(i *identity) { i.digest = other.Digest() },
		"reference": func(i *identity) { i.reference = "example.com/other:1" },
		"indexes":   func(i *identity) { i.indexes = []v1.Hash{other.Digest()} },
	} {
		i := truth
		lie(&i)
		raw := tarballBytes(t, img, src.Blobs)
		server.Put("images/"+name, raw, i.metadata())
		file := get(t, b, name)
		assert.Equal(t, img.Digest(), file.Image.Digest(), about)
		assert.Equal(t, img.Reference(), file.Image.Reference(), about)
		results, err := b.Verify(t.Context(), nil, nil)
		require.NoError(t, err)
		require.ErrorIs(t, results[0].Err, tarball.ErrDigest, about)
		assert.Empty(t, results[0].Damaged)
		entries, err := b.List(t.Context())
		require.NoError(t, err)
		assert.Equal(t, img.Digest(), entries[0].Info.Image.Digest())
	}
}

// Any metadata is read as what it is, or as none of this package.
func TestIdentity(t *testing.T) {
	d := cachetest.Digest([]byte("a"))
	i := &identity{digest: d, reference: "example.com/a:1", indexes: []v1.Hash{d, cachetest.Digest(nil)}, run: tarball.Run{ID: 1 << 40, Attempt: 3}, group: "ä +&%\"", token: "t"}
	m := i.metadata()
	got := identityOf(m)
	require.NotNil(t, got)
	got.verified = i.verified
	assert.Equal(t, i, got)
	upper := map[string]string{}
	for k, v := range m {
		upper[strings.ToUpper(k)] = v
		for _, r := range v {
			assert.Less(t, r, rune(0x7f), "metadata is ASCII")
		}
	}
	assert.NotNil(t, identityOf(upper))
	for k, bad := range map[string]string{
		metaDigest: "sha256:5", metaReference: "", metaVerified: "yesterday", metaRun: "1.x", metaGroup: "%zz", metaIndexes: d.String() + ",",
	} {
		changed := map[string]string{}
		for k, v := range m {
			changed[k] = v
		}
		changed[k] = bad
		assert.Nil(t, identityOf(changed), k)
	}
	assert.Nil(t, identityOf(nil))
}

// What Verify finds wrong is stored again: damaged bytes, and metadata of another image, whatever
// it says of the run and the repository.
func TestRepair(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	img, other := src.image(t, src.layers(100_000, 50_000)...), src.imageAs(t, "example.com/other:1", src.layer(9, 1000))
	p := tarball.Provenance{Run: tarball.Run{ID: 5, Attempt: 1}, Branch: "main"}
	_, err := open(t, server, nil).Put(t.Context(), name, img, src, &cache.PutOptions{Provenance: p, Group: "team"})
	require.NoError(t, err)
	raw, _ := server.Object("images/" + name)
	truth := identityOf(server.Metadata("images/" + name))
	damaged := bytes.Clone(raw)
	damaged[len(damaged)-20_000] ^= 1
	for about, c := range map[string]struct {
		content []byte
		lie     func(i *identity)
		run     int64
		group   string
	}{
		"a byte":              {damaged, func(*identity) {}, 5, "team"},
		"a byte, newer run":   {damaged, func(i *identity) { i.run.ID = 8 }, 8, "team"},
		"digest":              {raw, func(i *identity) { i.digest = other.Digest() }, 5, ""},
		"digest, a newer run": {raw, func(i *identity) { i.digest, i.run.ID = other.Digest(), 1<<40 }, 5, ""},
		"reference":           {raw, func(i *identity) { i.reference = other.Reference() }, 5, ""},
		"all of another":      {damaged, func(i *identity) { i.digest, i.reference = other.Digest(), other.Reference() }, 5, ""},
		"indexes":             {raw, func(i *identity) { i.indexes = []v1.Hash{other.Digest()} }, 5, "team"},
		"none":                {damaged, nil, 5, ""},
	} {
		var metadata map[string]string
		if c.lie != nil {
			i := *truth
			c.lie(&i)
			metadata = i.metadata()
		}
		server.Put("images/"+name, c.content, metadata)
		b := open(t, server, nil)
		results, err := b.Verify(t.Context(), nil, nil)
		require.NoError(t, err)
		require.ErrorIs(t, results[0].Err, tarball.ErrDigest, about)
		result, err := b.Repair(t.Context(), &results[0], src, nil)
		require.NoError(t, err, about)
		assert.Equal(t, cache.Stocked, result.Outcome, about)
		requireObject(t, server, name, img, src.Blobs, p)
		got := identityOf(server.Metadata("images/" + name))
		assert.Equal(t, img.Digest(), got.digest)
		assert.Equal(t, img.Reference(), got.reference)
		assert.Equal(t, c.run, got.run.ID, about)
		assert.Equal(t, c.group, got.group, about)
		requireNothingLeft(t, server)
		again, err := b.Verify(t.Context(), nil, nil)
		require.NoError(t, err)
		require.NoError(t, again[0].Err)
	}
}

// A repair replaces what was verified, and not what another has stored since, at whatever moment.
func TestRepairOfAReplaced(t *testing.T) {
	for _, at := range []buckettest.Op{"before", buckettest.UploadPart, buckettest.CompleteMultipartUpload} {
		for _, removed := range []bool{false, true} {
			server := buckettest.New(t, "bucket")
			src := newSource()
			img, newer := src.image(t, src.layers(100_000)...), src.image(t, src.layer(9, 1000))
			raw := bytes.Clone(stockImage(t, server, name, src, img))
			raw[len(raw)-20_000] ^= 1
			server.Put("images/"+name, raw, nil)
			b := open(t, server, nil)
			server.Put("images/.probe", nil, nil)
			require.NoError(t, b.checkConditions(t.Context(), ".probe"))
			server.Remove("images/.probe")
			results, err := b.Verify(t.Context(), nil, nil)
			require.NoError(t, err)
			require.Error(t, results[0].Err)
			replace := func() {
				server.Remove("images/" + name)
				if !removed {
					stockImage(t, server, name, src, newer)
				}
			}
			var once sync.Once
			server.SetQuirks(buckettest.Quirks{Replace: func(op buckettest.Op, key string) {
				if op == at && key == "images/"+name {
					once.Do(replace)
				}
			}})
			if at == "before" {
				replace()
			}
			_, err = b.Repair(t.Context(), &results[0], src, nil)
			require.ErrorIs(t, err, cache.ErrReplaced, at)
			_, is := server.Object("images/" + name)
			assert.Equal(t, !removed, is)
			if is {
				requireObject(t, server, name, newer, src.Blobs, tarball.Provenance{})
			}
			requireNothingLeft(t, server)
		}
	}
	_, err := (&Bucket{}).Repair(t.Context(), &cache.VerifyResult{Name: name, Info: &tarball.Info{}}, none, nil)
	require.ErrorContains(t, err, "no result of a verification")
}
