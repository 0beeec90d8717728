package interop

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"

	"github.com/dockercache/dockercache/internal/testtool"
)

// The main job with real parts: an image of more than 1 GiB made of this
// machine's own files, pushed to Debian's docker-registry, stocked by the
// example program, loaded into a Docker Engine.
func TestRealImage(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: this test makes, pushes, stocks and loads 1 GiB")
	}
	e := connect(t, docker)
	host := startRegistry(t)
	const marker = "etc/dockercache-marker"
	content := fmt.Appendf(nil, "made at %s\n", time.Now().Format(time.RFC3339Nano))
	tag, err := name.NewTag(host + "/pytorch/ci-image:host-image-2f5e")
	require.NoError(t, err)
	// With the race detector, to compress all of it would take longer than all the rest.
	image := hostImage(t, content,
		hostLayer{size: 530 << 20, level: gzip.NoCompression},
		hostLayer{size: 16 << 20, level: gzip.HuffmanOnly, marker: marker},
		hostLayer{size: 530 << 20, level: gzip.NoCompression})
	require.NoError(t, remote.Write(tag, image, remote.WithContext(t.Context())))

	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	// Through time(1): a child's own maximum, asked of the kernel, starts from
	// the size of the process that forked it, which is this test.
	usage := filepath.Join(t.TempDir(), "usage")
	cmd := exec.CommandContext(t.Context(), testtool.Need(t, "time"), "-f", "%M", "-o", usage,
		buildExample(t, "docker-cache"), "-dir", dir, "-branch", "main", "-json", tag.Name())
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), stderr.String())
	var line struct {
		Outcome, Digest, Tarball, Source, Error string
		BytesTotal                              int64 `json:"bytes_total"`
		BytesDownloaded                         int64 `json:"bytes_downloaded"`
	}
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &line))
	assert.Equal(t, "stocked", line.Outcome)
	assert.Equal(t, filepath.Join(dir, "host-image_main.tar"), line.Tarball)
	assert.Equal(t, tag.Name(), line.Source)
	assert.Greater(t, line.BytesDownloaded, int64(1<<30), "the image is as large as it should be")
	digest, err := image.Digest()
	require.NoError(t, err)
	assert.Equal(t, digest.String(), line.Digest)

	// Memory must not grow with the image.
	measured, err := os.ReadFile(usage)
	require.NoError(t, err)
	peak, err := strconv.Atoi(strings.TrimSpace(string(measured))) // KiB
	require.NoError(t, err)
	assert.Less(t, peak, 64<<10, "peak memory in KiB")
	t.Logf("%d bytes stocked, peak memory %d KiB", line.BytesTotal, peak)

	stocked, err := tarball.Open(line.Tarball)
	require.NoError(t, err)
	require.NoError(t, stocked.Verify(t.Context(), nil))

	requireDockerLoads(t, e, stocked, marker, content)
}

// requireDockerLoads loads a tarball and checks what the engine made of it: the
// reference as RepoTag, the config's digest as ID, a file's content.
func requireDockerLoads(t *testing.T, e engine, stocked *tarball.Tarball, file string, content []byte) {
	t.Helper()
	client := func(args ...string) string {
		return run(t, "docker", append([]string{"-H", e.address}, args...)...)
	}
	client("load", "-i", stocked.Name())
	ref := stocked.Image.Reference()
	var inspected []struct {
		ID       string `json:"Id"`
		RepoTags []string
	}
	require.NoError(t, json.Unmarshal([]byte(client("image", "inspect", ref)), &inspected))
	require.Len(t, inspected, 1)
	assert.Equal(t, []string{ref}, inspected[0].RepoTags)
	assert.Equal(t, configDigest(t, stocked), inspected[0].ID)

	container := strings.TrimSpace(client("create", ref, "/nothing"))
	defer client("rm", container)
	copied := filepath.Join(t.TempDir(), "copied")
	client("cp", container+":/"+file, copied)
	requireFile(t, copied, content)
}
