package interop

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"

	"github.com/dockercache/dockercache/internal/testtool"
)

// startServe starts serve-cache, with more flags if any, and returns HOST:PORT.
func startServe(t *testing.T, dir string, flags ...string) string {
	t.Helper()
	cmd := exec.Command(buildExample(t, "serve-cache"), append([]string{"-dir", dir, "-addr", "127.0.0.1:0"}, flags...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the test
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	_, host, found := strings.Cut(strings.TrimSpace(line), " at http://")
	require.True(t, found, line)
	return host
}

// served is a directory with one image, registry.example/team/image:a-1, that is
// served.
func served(t *testing.T) (host string, stocked *tarball.Tarball) {
	t.Helper()
	s := newStore(t)
	stocked = s.stock("a_main.tar", "team/image:a-1", "one", "two", "three")
	return startServe(t, s.dir.Path()), stocked
}

// Engines pull what is served, by its whole name.
func TestServeToEngines(t *testing.T) {
	host, stocked := served(t)
	name := host + "/" + stocked.Image.Reference()
	t.Run("docker", func(t *testing.T) {
		e := connect(t, docker)
		run(t, "docker", "-H", e.address, "pull", "-q", name)
		run(t, "docker", "-H", e.address, "tag", name, stocked.Image.Reference())
		requireSameFiles(t, e, stocked)
	})
	t.Run("skopeo", func(t *testing.T) {
		testtool.Need(t, "skopeo")
		dir := t.TempDir()
		run(t, "skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "docker://"+name, "dir:"+dir)
		manifest, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
		require.NoError(t, err)
		assert.Equal(t, string(stocked.Image.Manifest()), string(manifest))
		assert.Contains(t, run(t, "skopeo", "list-tags", "--tls-verify=false", "docker://"+host+"/registry.example/team/image"), `"a-1"`)
	})
}

// Engines that have it as a mirror get the image by its own name. The registry itself
// is nowhere.
func TestServeAsAMirror(t *testing.T) {
	host, stocked := served(t)
	t.Run("containerd", func(t *testing.T) {
		e := connectContainerd(t, containerd)
		hosts := containerdMirror(t, "registry.example", "registry.example", host, "")
		run(t, "ctr", "--address", e.socket, "images", "pull", "--hosts-dir", hosts, stocked.Image.Reference())
		requireSameFiles(t, e, stocked)
	})
	t.Run("podman", func(t *testing.T) {
		testtool.Need(t, "podman")
		conf := filepath.Join(t.TempDir(), "registries.conf")
		podmanMirror(t, conf, "registry.example", host+"/registry.example")
		e := connect(t, podman)
		t.Setenv("CONTAINERS_REGISTRIES_CONF", conf)
		run(t, "podman", append(podmanAt(filepath.Dir(e.socket)), "pull", "-q", stocked.Image.Reference())...)
		requireSameFiles(t, e, stocked)
	})
}
