package interop

import (
	"bytes"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/bucket"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/s3gateway"
)

// From a bucket an image is loaded as from a directory: whole, then not at all, then what is new.
func TestLoadFromABucket(t *testing.T) {
	cfg, _ := s3gateway.Start(t, "bucket")
	b, err := bucket.Open(t.Context(), "s3://bucket/images", &bucket.Options{Config: &cfg})
	require.NoError(t, err)
	onAll(t, func(t *testing.T, e engine) {
		s := newStore(t)
		stored := func(name, repository string, layers ...string) *tarball.Tarball {
			local := s.stock(name, repository, layers...)
			_, err := b.Put(t.Context(), s.id+name, local.Image, local, nil)
			require.NoError(t, err)
			stored, err := b.Get(t.Context(), s.id+name)
			require.NoError(t, err)
			t.Cleanup(func() { _ = stored.Close() })
			return stored
		}
		first := stored("bucket_main.tar", "team/image:bucket-1", "one", "two", "three", "four", "five")
		requireLoad(t, e, s, first, loader.Loaded)
		result := requireLoad(t, e, s, first, loader.Present)
		assert.Zero(t, result.Streamed)
		second := stored("bucket_main.tar", "team/image:bucket-1", "one", "two", "three", "four", "six")
		result = requireLoad(t, e, s, second, loader.Delta)
		assert.Less(t, result.Streamed, int64(3<<20)/2, "one layer, and the metadata")
	})
}

// What lies in the bucket is what docker load reads: aws s3 cp s3://… - | docker load.
func TestObjectIsATarball(t *testing.T) {
	address := docker.use(t)
	cfg, data := s3gateway.Start(t, "bucket")
	b, err := bucket.Open(t.Context(), "s3://bucket", &bucket.Options{Config: &cfg})
	require.NoError(t, err)
	s := newStore(t)
	local := s.stock("object_main.tar", "team/image:object-1", "one", "two")
	_, err = b.Put(t.Context(), "object_main.tar", local.Image, local, nil)
	require.NoError(t, err)
	cmd := exec.Command("docker", "-H", address, "load", "-i", data+"/bucket/object_main.tar")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Run(), "%s", &out)
	assert.Contains(t, out.String(), "registry.example/team/image:object-1")
}
