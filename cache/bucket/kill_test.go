package bucket

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// writerOf is what the process that is killed stores, and the parent expects.
func writerOf(t testing.TB, b *Bucket) (src *source, img *tarball.Image) {
	b.limits, b.saveStep, b.lookEvery = &small, 64<<10, time.Millisecond
	b.options.Memory = 2 << 20
	b.fetcher.SetSizes(16<<10, 64<<10, 4<<10)
	src = newSource()
	return src, src.image(t, src.layers(200_000, 1_500_000, 20, 300_000)...)
}

// A process that is killed at any moment leaves no object that does not verify, and what the
// next one goes on with.
func TestKilled(t *testing.T) {
	if at := os.Getenv("BUCKET_TEST_SERVER"); at != "" { // the process that is killed
		cfg := aws.Config{Region: buckettest.Region, BaseEndpoint: &at, Credentials: credentials.NewStaticCredentialsProvider(buckettest.AccessKeyID, buckettest.SecretAccessKey, "")}
		b, err := Open(t.Context(), "s3://bucket/images", &Options{Config: &cfg, Connections: 2})
		require.NoError(t, err)
		src, img := writerOf(t, b)
		src.slow = func(ctx context.Context, _ v1.Hash, _, _ int64) { _ = wait.Sleep(ctx, 2*time.Millisecond) }
		_, err = b.Put(t.Context(), name, img, src, nil)
		require.NoError(t, err)
		fmt.Println("stored after", src.total())
		return
	}
	server := buckettest.New(t, "bucket")
	b := open(t, server, nil)
	src, img := writerOf(t, b)
	stored, resumed := 0, 0
	for round := range 60 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$", "-test.v")
		cmd.Env = append(os.Environ(), "BUCKET_TEST_SERVER="+server.URL())
		out := &strings.Builder{}
		cmd.Stdout, cmd.Stderr = out, out
		// Killed when so many requests have come since it began.
		began, kill := len(server.Requests()), 1+round*7%53
		require.NoError(t, cmd.Start())
		var once sync.Once
		server.SetQuirks(buckettest.Quirks{Replace: func(buckettest.Op, string) {
			if len(server.Requests())-began >= kill {
				once.Do(func() { _ = cmd.Process.Kill() })
			}
		}})
		err := cmd.Wait()
		server.SetQuirks(buckettest.Quirks{})
		if _, is := server.Object("images/" + name); is {
			results, verifyErr := b.Verify(t.Context(), nil, nil)
			require.NoError(t, verifyErr)
			for _, r := range results {
				require.NoError(t, r.Err, "round %d", round)
			}
			stored++
			if i := strings.Index(out.String(), "stored after "); i >= 0 {
				n, _ := strconv.ParseInt(strings.Fields(out.String()[i:])[2], 10, 64)
				if n < 1_900_000 {
					resumed++
				}
			}
			requireObject(t, server, name, img, src.Blobs, tarball.Provenance{})
			server.Remove("images/" + name)
		} else {
			require.Error(t, err, "round %d: it ended without an object: %s", round, out)
		}
	}
	t.Logf("%d of 60 stored it, %d of them resumed", stored, resumed)
	assert.Positive(t, stored)
	assert.Positive(t, resumed)
	_, err := b.Put(t.Context(), name, img, src, nil)
	require.NoError(t, err)
	requireObject(t, server, name, img, src.Blobs, tarball.Provenance{})
	_, err = b.Sweep(t.Context(), &cache.SweepOptions{Age: time.Nanosecond})
	require.NoError(t, err)
	requireNothingLeft(t, server)
}
