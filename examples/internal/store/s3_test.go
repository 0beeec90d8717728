package store

import (
	"flag"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

// parseS3 parses the flags of a program that stocks.
func parseS3(args ...string) (*S3, *flag.FlagSet, error) {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.String("from", "", "")
	s := &S3{}
	s.RegisterReads(set)
	s.RegisterWrites(set)
	return s, set, set.Parse(args)
}

func TestS3Flags(t *testing.T) {
	const in, dir = "s3://b/p", "dir"
	for _, c := range []struct {
		at   string
		args []string
		want string // the error; "" if there is none
	}{
		{in, []string{"-s3-encryption", "AES256", "-s3-storage-class", "STANDARD_IA", "-s3-tags", "a=b, c=d=e,f=", "-s3-requester-pays"}, ""},
		{in, []string{"-s3-kms-key", "k"}, ""},
		{in, []string{"-s3-encryption", "rot13"}, "-s3-encryption rot13: want one of AES256, aws:kms, aws:kms:dsse"},
		{in, []string{"-s3-encryption", "AES256", "-s3-kms-key", "k"}, "-s3-kms-key is for -s3-encryption aws:kms"},
		{in, []string{"-s3-tags", "a=1,b=1,c=1,d=1,e=1,f=1,g=1,h=1,i=1,j=1,k=1"}, "-dir: bucket: Options.Tags are 11: S3 allows 10"},
		{dir, []string{"-s3-encryption", "AES256"}, "-s3-encryption is for buckets, and -dir dir is a directory: leave it out"},
		{dir, []string{"-s3-kms-key", "k"}, "-s3-kms-key is for buckets, and -dir dir is a directory: leave it out"},
		{dir, []string{"-s3-storage-class", "x"}, "-s3-storage-class is for buckets, and -dir dir is a directory: leave it out"},
		{dir, []string{"-s3-tags", "a=b"}, "-s3-tags is for buckets, and -dir dir is a directory: leave it out"},
		{dir, []string{"-s3-requester-pays"}, "-s3-requester-pays is for buckets, and -dir dir is a directory: leave it out"},
		{dir, []string{"-s3-requester-pays", "-from", "dir2"}, "-s3-requester-pays is for buckets, and -dir dir is a directory: leave it out"},
		{dir, []string{"-s3-requester-pays", "-from", in}, ""},
		{dir, []string{"-s3-requester-pays", in + "/a.tar"}, ""},
		{dir, []string{"-s3-tags", "a=b", "-from", in}, "-s3-tags is for buckets, and -dir dir is a directory: leave it out"},
	} {
		s, set, err := parseS3(c.args...)
		require.NoError(t, err, c.args)
		if _, err = s.Dir(c.at, set); c.want == "" {
			require.NoError(t, err, c.args)
		} else {
			require.EqualError(t, err, c.want)
		}
	}
	for _, bad := range []string{"", "a", "=b", "a=b,", "a=b,a=c"} {
		_, _, err := parseS3("-s3-tags", bad)
		require.Error(t, err, bad)
	}
}

// What the flags say arrives at the server.
func TestS3FlagsArrive(t *testing.T) {
	server := buckettest.New(t, "bucket")
	setEnv(t, server)
	s, set, err := parseS3("-s3-kms-key", "k", "-s3-storage-class", "STANDARD_IA", "-s3-tags", "team=a b,cost=1", "-s3-requester-pays")
	require.NoError(t, err)
	at, err := s.Dir("s3://bucket/images", set)
	require.NoError(t, err)
	into, err := Open(t.Context(), at, nil, s)
	require.NoError(t, err)
	layer, err := imagetest.Layer("a", 1<<20)
	require.NoError(t, err)
	made, err := cache.Open(t.TempDir(), nil)
	require.NoError(t, err)
	const name, ref = "a_main.tar", "registry.test/a:1"
	img, source, err := tarballtest.Image(ref, layer)
	require.NoError(t, err)
	_, err = made.Put(t.Context(), name, img, source, nil)
	require.NoError(t, err)
	stocked, err := made.Get(t.Context(), name)
	require.NoError(t, err)
	defer stocked.Close()
	_, err = into.Stock(t.Context(), name, ref, &Stocked{stocked, made.Path()}, nil)
	require.NoError(t, err)
	h := server.Header("images/" + name)
	for name, want := range map[string]string{
		"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "k", "X-Amz-Storage-Class": "STANDARD_IA", "X-Amz-Tagging": "cost=1&team=a+b",
	} {
		assert.Equal(t, want, h.Get(name), name)
	}
	for _, r := range server.Requests() {
		assert.Equal(t, "requester", r.Header.Get("X-Amz-Request-Payer"), r.Op)
	}
}
