package measure_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/advise/measure"
	"github.com/dockercache/dockercache/cache/bucket"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/tarball"
)

func openBucket(t *testing.T) (*buckettest.Server, *bucket.Bucket) {
	t.Helper()
	server := buckettest.New(t, "bucket")
	t.Setenv("HOME", t.TempDir()) // no ~/.aws
	for name, value := range server.Env() {
		t.Setenv(name, value)
	}
	b, err := bucket.Open(t.Context(), "s3://bucket/images", nil)
	require.NoError(t, err)
	return server, b
}

func TestBucket(t *testing.T) {
	server, b := openBucket(t)
	s, samples, err := measure.Bucket(t.Context(), b, &measure.BucketOptions{Limit: measure.Limit{Time: time.Hour, Bytes: 12 << 20}})
	require.NoError(t, err)
	assert.True(t, s.Bucket)
	assert.True(t, s.Shared)
	for _, rate := range []float64{s.ReadOne, s.ReadMany, s.Write} {
		assert.Positive(t, rate)
	}
	require.Len(t, samples, 3)
	assert.InEpsilon(t, 12<<20, samples[0].Bytes, 0.01)
	assert.InEpsilon(t, 12<<20, samples[1].Bytes, 0.01)
	assert.Empty(t, server.Objects())
}

// interrupted is a bucket with which the context ends when the sample is there.
type interrupted struct {
	*bucket.Bucket
	end func()
}

func (i interrupted) Get(ctx context.Context, name string) (*tarball.Tarball, error) {
	i.end()
	return i.Bucket.Get(ctx, name)
}

func TestBucketLeavesNothing(t *testing.T) {
	server, b := openBucket(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	_, _, err := measure.Bucket(ctx, interrupted{b, func() { cancel(errInterrupted) }}, &measure.BucketOptions{Limit: measure.Limit{Bytes: 1 << 20}})
	require.ErrorIs(t, err, errInterrupted)
	require.ErrorContains(t, err, "measure s3://bucket/images")
	assert.Empty(t, server.Objects())
}
