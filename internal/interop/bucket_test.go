package interop

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/bucket"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/internal/s3gateway"
	"github.com/dockercache/dockercache/registry/registrytest"
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

// The programs with a bucket of a real server: stock, again, list, verify, serve, fill a directory,
// prune.
func TestProgramsWithABucket(t *testing.T) {
	cfg, data := s3gateway.Start(t, "bucket")
	credentials, err := cfg.Credentials.Retrieve(t.Context())
	require.NoError(t, err)
	dir := t.TempDir()
	command := func(program string, args ...string) *exec.Cmd {
		cmd := exec.Command(buildExample(t, program), args...)
		cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL_S3="+*cfg.BaseEndpoint, "AWS_REGION="+cfg.Region, "AWS_ACCESS_KEY_ID="+credentials.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+credentials.SecretAccessKey,
			"DOCKER_CONFIG="+dir, "GITHUB_ACTIONS=", "GITHUB_STEP_SUMMARY=", "GITHUB_OUTPUT=")
		return cmd
	}
	run := func(want int, program string, args ...string) string {
		t.Helper()
		cmd := command(program, args...)
		out, _ := cmd.CombinedOutput()
		require.Equal(t, want, cmd.ProcessState.ExitCode(), "%s %s: %s", program, args, out)
		require.NotContains(t, string(out), credentials.SecretAccessKey)
		return string(out)
	}
	server := registrytest.New(t)
	image, err := imagetest.Image(must(imagetest.Layer("program", 9<<20))(t), must(imagetest.Layer("program-2", 1<<20))(t))
	require.NoError(t, err)
	ref, err := server.Push("team/image:jammy-1", image)
	require.NoError(t, err)
	const into = "s3://bucket/images"
	stock := []string{"-branch", "main", "-naming", "strip", "-dir"}
	assert.Contains(t, run(0, "docker-cache", append(stock, into, ref)...), "stocked ")
	assert.Contains(t, run(0, "docker-cache", append(stock, into, ref)...), "unchanged ")
	assert.Contains(t, run(0, "cache-admin", "list", "-dir", into), "jammy_main.tar")
	run(0, "cache-admin", "verify", "-dir", into)
	assert.Contains(t, run(0, "docker-cache", append(stock, dir, "-from", into, ref)...), "stocked ")
	stored, err := os.ReadFile(filepath.Join(data, "bucket", "images", "jammy_main.tar"))
	require.NoError(t, err)
	local, err := os.ReadFile(filepath.Join(dir, "jammy_main.tar"))
	require.NoError(t, err)
	assert.True(t, bytes.Equal(stored, local), "the directory's tarball is the bucket's")

	// serve-cache serves it, and what is pulled is the image, byte for byte.
	named, err := name.ParseReference(ref)
	require.NoError(t, err)
	served, address := serving(t, command("serve-cache", "-dir", into, "-addr", "127.0.0.1:0", "-registry", named.Context().RegistryStr(), "-v"))
	repository := address + "/" + named.Context().RepositoryStr()
	pulled, err := crane.Pull(repository+":"+named.Identifier(), crane.Insecure)
	require.NoError(t, err)
	require.NoError(t, validate.Image(pulled))
	assert.Equal(t, must(image.Digest())(t), must(pulled.Digest())(t))
	_, err = crane.Pull(repository+":other", crane.Insecure)
	require.ErrorContains(t, err, "MANIFEST_UNKNOWN")
	require.NotContains(t, served(), credentials.SecretAccessKey)

	run(3, "load-image", "-host", "unix:///nowhere", "-branch", "main", "-naming", "strip", "-dir", into, "example.com/other:none-1")
	run(1, "load-image", "-host", "unix:///nowhere", "-branch", "main", "-naming", "strip", "-dir", "s3://typo", ref)
	run(0, "cache-admin", "prune", "-dir", into, "-count", "1")
}

// serving starts serve-cache until the test ends, and returns its address. ended ends it, and returns
// what it has printed.
func serving(t *testing.T, cmd *exec.Cmd) (ended func() string, address string) {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var log bytes.Buffer
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	end := sync.OnceFunc(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	t.Cleanup(end)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err, "%s", &log)
	_, address, ok := strings.Cut(strings.TrimSpace(line), " at http://")
	require.True(t, ok, "%s", line)
	return func() string { end(); return line + log.String() }, address
}

// must is for a value and an error as an argument.
func must[T any](value T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		require.NoError(t, err)
		return value
	}
}
