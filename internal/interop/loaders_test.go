package interop

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	v1tarball "github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/internal/testtool"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// small is a stocked image of two layers, the lower one twice. It was found through an
// index within an index.
func small(t *testing.T) *tarball.Tarball {
	t.Helper()
	a, err := imagetest.Layer("alpha", 1<<20)
	require.NoError(t, err)
	b, err := imagetest.Layer("beta", 12_345)
	require.NoError(t, err)
	image, err := imagetest.Image(a, b, a)
	require.NoError(t, err)
	server := registrytest.New(t)
	ref := pushNested(t, server, "pytorch/ci-image:small-2f5e", image)
	remote, err := registry.New(nil).Resolve(t.Context(), registry.DefaultPlatform(), ref)
	require.NoError(t, err)
	dir, err := cache.Open(t.TempDir(), nil)
	require.NoError(t, err)
	_, err = dir.Stock(t.Context(), "small_main.tar", ref, remote, &cache.PutOptions{Provenance: tarball.Provenance{Branch: "main"}})
	require.NoError(t, err)
	stocked, err := dir.Get(t.Context(), "small_main.tar")
	require.NoError(t, err)
	t.Cleanup(func() { _ = stocked.Close() })
	require.Len(t, stocked.Image.Indexes(), 2)
	return stocked
}

// pushNested pushes an image for this machine in an index within an index, and returns the
// reference of the outer one.
func pushNested(t *testing.T, server *registrytest.Server, repositoryTag string, image v1.Image) string {
	t.Helper()
	inner := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: empty.Image, Descriptor: v1.Descriptor{Platform: &foreign}},
		mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &own}})
	digest, err := inner.Digest()
	require.NoError(t, err)
	repository, _, _ := strings.Cut(repositoryTag, ":")
	_, err = server.PushIndex(repository+"@"+digest.String(), inner)
	require.NoError(t, err)
	ref, err := server.PushIndex(repositoryTag, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: inner}))
	require.NoError(t, err)
	return ref
}

const (
	smallFile    = "opt/beta/name"
	smallContent = "beta\n"
)

func configDigest(t *testing.T, tb *tarball.Tarball) string {
	t.Helper()
	return "sha256:" + sha256Hex(tb.Image.Config())
}

func sha256Hex(raw []byte) string { return fmt.Sprintf("%x", sha256.Sum256(raw)) }

func requireFile(t *testing.T, path string, want []byte) {
	t.Helper()
	have, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(have))
}

func TestDockerLoad(t *testing.T) {
	requireDockerLoads(t, connect(t, docker), small(t), smallFile, []byte(smallContent))
}

func TestPodmanLoad(t *testing.T) {
	tb := small(t)
	dir := shortDir(t, t)
	podman := func(args ...string) string {
		return run(t, "podman", append([]string{"--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs"}, args...)...)
	}
	podman("load", "-i", tb.Name())
	ref := tb.Image.Reference()
	assert.Equal(t, configDigest(t, tb), "sha256:"+strings.TrimSpace(podman("image", "inspect", "--format", "{{.Id}}", ref)))
	assert.Equal(t, "["+ref+"]", strings.TrimSpace(podman("image", "inspect", "--format", "{{.RepoTags}}", ref)))
	container := strings.TrimSpace(podman("create", ref, "/nothing"))
	copied := filepath.Join(t.TempDir(), "copied")
	podman("cp", container+":/"+smallFile, copied)
	requireFile(t, copied, []byte(smallContent))
	podman("rm", container)
}

func TestSkopeo(t *testing.T) {
	tb := small(t)
	for _, transport := range []string{"docker-archive:", "oci-archive:"} {
		t.Run(transport, func(t *testing.T) {
			var inspected struct {
				Digest string
				Layers []string
			}
			require.NoError(t, json.Unmarshal([]byte(run(t, "skopeo", "inspect", transport+tb.Name())), &inspected))
			assert.Len(t, inspected.Layers, 3)
			if transport == "oci-archive:" {
				assert.Equal(t, tb.Image.Digest().String(), inspected.Digest, "the registry's own digest")
			}
			to := t.TempDir()
			run(t, "skopeo", "--insecure-policy", "copy", transport+tb.Name(), "dir:"+to)
			config := strings.TrimPrefix(configDigest(t, tb), "sha256:")
			requireFile(t, filepath.Join(to, config), tb.Image.Config())
		})
	}
}

// Not everybody is root: skopeo unpacks an oci-archive, and sets the owner of
// directories that have no entry of their own.
func TestSkopeoAsAnotherUser(t *testing.T) {
	testtool.NeedRoot(t)
	tb := small(t)
	dir := shortDir(t, t) // t.TempDir is for its owner alone
	require.NoError(t, os.Chmod(dir, 0o755))
	content, err := os.ReadFile(tb.Name())
	require.NoError(t, err)
	path := filepath.Join(dir, "x.tar")
	require.NoError(t, os.WriteFile(path, content, 0o644))
	for _, transport := range []string{"docker-archive:", "oci-archive:"} {
		cmd := exec.Command(testtool.Need(t, "skopeo"), "inspect", transport+path)
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		cmd.Dir, cmd.Env = "/", []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s%s", transport, out)
	}
}

func TestContainerdImport(t *testing.T) {
	e := connectContainerd(t, containerd)
	tb := small(t)
	client := func(args ...string) string { return run(t, "ctr", append([]string{"--address", e.socket}, args...)...) }
	client("images", "import", "--snapshotter", "native", tb.Name())
	var found []string
	for line := range strings.Lines(client("images", "ls")) {
		if f := strings.Fields(line); f[0] == tb.Image.Reference() {
			found = f
		}
	}
	require.NotNil(t, found, "the reference is the image's name")
	assert.Equal(t, tb.Image.Digest().String(), found[2], "the registry's own digest")
	target := t.TempDir()
	client("images", "mount", "--snapshotter", "native", tb.Image.Reference(), target)
	defer client("images", "unmount", "--rm", "--snapshotter", "native", target)
	requireFile(t, filepath.Join(target, smallFile), []byte(smallContent))
}

func TestGoContainerregistry(t *testing.T) {
	tb := small(t)
	image, err := v1tarball.ImageFromPath(tb.Name(), nil)
	require.NoError(t, err)
	require.NoError(t, validate.Image(image))
	raw, err := image.RawConfigFile()
	require.NoError(t, err)
	assert.Equal(t, tb.Image.Config(), raw)
	layers, err := image.Layers()
	require.NoError(t, err)
	var digests []v1.Hash
	for _, l := range layers {
		d, err := l.Digest()
		require.NoError(t, err)
		digests = append(digests, d)
	}
	var want []v1.Hash
	for _, l := range tb.Image.Layers() {
		want = append(want, l.Digest)
	}
	assert.Equal(t, want, digests)
}
