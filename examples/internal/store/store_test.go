package store

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/examples/internal/stocked"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/internal/tarballtest"
	"github.com/dockercache/dockercache/tagging"
)

func TestOpen(t *testing.T) {
	path := t.TempDir()
	dir, err := Open(t.Context(), path, nil, nil)
	require.NoError(t, err)
	assert.IsType(t, &cache.Dir{}, dir)
	missing, err := Open(t.Context(), filepath.Join(path, "missing"), nil, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.Nil(t, missing)

	setEnv(t, buckettest.New(t, "bucket"))
	b, err := Open(t.Context(), "s3://bucket/images/", nil, nil)
	require.NoError(t, err)
	assert.IsType(t, &bucket.Bucket{}, b)
	assert.Equal(t, "s3://bucket/images", b.Path())
	bad, err := Open(t.Context(), "s3://", &cache.Options{}, nil)
	require.ErrorContains(t, err, "it has no bucket")
	assert.Nil(t, bad)
}

func TestJoin(t *testing.T) {
	for _, c := range [][3]string{
		{"s3://bucket", "a.tar", "s3://bucket/a.tar"},
		{"s3://bucket/images/", "a.tar", "s3://bucket/images/a.tar"},
		{"dir/", "a.tar", "dir/a.tar"},
	} {
		assert.Equal(t, c[2], Join(c[0], c[1]))
	}
	at, name := Split("s3://bucket/images/a.tar")
	assert.Equal(t, "s3://bucket/images a.tar", at+" "+name)
}

func TestDir(t *testing.T) {
	parse := func(args ...string) *flag.FlagSet {
		set := flag.NewFlagSet("", flag.ContinueOnError)
		set.SetOutput(io.Discard)
		for _, name := range append(directoryFlags, "verify") {
			set.String(name, "", "")
		}
		require.NoError(t, set.Parse(args))
		return set
	}
	for _, name := range directoryFlags {
		_, err := new(S3).Dir("s3://b", parse("-"+name, "1"))
		require.EqualError(t, err, "-"+name+" is for directories, and -dir s3://b is a bucket: leave it out")
		at, err := new(S3).Dir("dir", parse("-"+name, "1"))
		require.NoError(t, err)
		assert.Equal(t, "dir", at)
	}
	at, err := new(S3).Dir("s3://b/p", parse("-verify", "1"))
	require.NoError(t, err)
	assert.Equal(t, "s3://b/p", at)
	for _, at := range []string{"s3://", "s3:///p", "s3://b/../c", "s3://b?x", "gs://b", "https://b.s3.amazonaws.com/p"} {
		_, err := new(S3).Dir(at, parse())
		require.ErrorContains(t, err, "-dir", at)
	}
	t.Setenv("HOME", "/home/runner")
	at, err = new(S3).Dir("", parse("-quota", "1"))
	require.NoError(t, err)
	assert.Equal(t, "/home/runner/pytorch-data/docker", at)
}

// setEnv makes the environment one that leads to a server.
func setEnv(t *testing.T, server *buckettest.Server) {
	t.Helper()
	t.Setenv("HOME", t.TempDir()) // no ~/.aws
	for name, value := range server.Env() {
		t.Setenv(name, value)
	}
}

// A directory that is filled from a bucket has the same tarball, byte by byte, and the
// bucket is read once.
func TestFillFromBucket(t *testing.T) {
	const ref = "registry.test/ci/image:jammy-1"
	names, err := tagging.Scheme{}.Names(ref, "main", "")
	require.NoError(t, err)
	server := buckettest.New(t, "bucket")
	setEnv(t, server)
	from, err := Open(t.Context(), "s3://bucket/images", nil, nil)
	require.NoError(t, err)
	_, err = From(t.Context(), from, ref, names)
	require.ErrorIs(t, err, stocked.ErrMissing)

	made, err := cache.Open(t.TempDir(), nil)
	require.NoError(t, err)
	const size = 24 << 20
	var layers []v1.Layer
	for _, name := range []string{"a", "b"} {
		l, err := imagetest.Layer(name, size)
		require.NoError(t, err)
		layers = append(layers, l)
	}
	img, source, err := tarballtest.Image(ref, layers...)
	require.NoError(t, err)
	first := tarball.Provenance{Source: "mirror.test/ci/image:jammy-1", Branch: "release", Run: tarball.Run{ID: 5, Attempt: 1}}
	_, err = made.Put(t.Context(), names.Tarball, img, source, &cache.PutOptions{Provenance: first})
	require.NoError(t, err)
	want, err := os.ReadFile(filepath.Join(made.Path(), names.Tarball))
	require.NoError(t, err)
	server.Put("images/"+names.Tarball, want, nil)

	found, err := From(t.Context(), from, ref, names)
	require.NoError(t, err)
	defer found.Close()
	assert.Equal(t, "s3://bucket/images/"+names.Tarball, found.Source())
	assert.Equal(t, first, found.ProvenanceFor(tarball.Run{}))
	assert.Equal(t, first, found.ProvenanceFor(tarball.Run{ID: 4, Attempt: 1}))
	assert.Equal(t, tarball.Run{ID: 7, Attempt: 1}, found.ProvenanceFor(tarball.Run{ID: 7, Attempt: 1}).Run)

	dir, err := Open(t.Context(), t.TempDir(), nil, nil)
	require.NoError(t, err)
	result, err := dir.Stock(t.Context(), names.Tarball, names.RepoTag, found, &cache.PutOptions{Provenance: found.ProvenanceFor(tarball.Run{})})
	require.NoError(t, err)
	assert.Equal(t, cache.Stocked, result.Outcome)
	assert.Equal(t, "s3://bucket/images", result.Sources[0].Name)
	got, err := os.ReadFile(filepath.Join(dir.Path(), names.Tarball))
	require.NoError(t, err)
	assert.True(t, string(want) == string(got), "the tarballs differ")

	var read int64
	for _, r := range server.Requests() {
		read += r.Downloaded
	}
	assert.Less(t, read, int64(len(want))*11/10, "the bucket is read once")

	// What metadata says of another image is not believed.
	const lie = "registry.test/ci/image:jammy-2"
	server.Put("images/"+names.Tarball, want, map[string]string{
		"dockercache-digest": "sha256:" + strings.Repeat("0", 64), "dockercache-reference": lie, "dockercache-verified": "2026-11-26T12:00:00Z",
	})
	names.RepoTag = lie
	_, err = From(t.Context(), from, names.RepoTag, names)
	require.ErrorIs(t, err, stocked.ErrMissing)
	require.ErrorContains(t, err, "holds "+ref)
}
