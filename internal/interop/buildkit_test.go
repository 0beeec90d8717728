package interop

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/testtool"
)

// mirrorBuildkit starts a BuildKit without Docker. It pulls what a build begins with, and
// has no command that pulls alone.
func mirrorBuildkit(t *testing.T, m *mirrored) mirrorEngine {
	programs(t, buildkitPrograms)
	testtool.Need(t, "runc")
	d := (&daemon{start: func(t *testing.T, d *daemon) string {
		dir := shortDir(t, d)
		config, address := filepath.Join(dir, "buildkitd.toml"), "unix://"+dir+"/buildkitd.sock"
		writeRecipe(t, config, "buildkitd.toml", "", "127.0.0.1:5000", m.serve)
		start(t, d, "running server on", "buildkitd", "--config", config, "--root", dir+"/root", "--addr", address,
			"--containerd-worker=false", "--oci-worker=true", "--oci-worker-snapshotter=native")
		return address
	}}).own(t, "")
	address := d.use(t)
	build := func(t *testing.T, reference string) (tarball string, err error) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+reference+"\n"), 0o600))
		tarball = filepath.Join(dir, "files.tar")
		return tarball, failure(try(t, "buildctl", "--addr", address, "build", "--progress=plain", "--frontend", "dockerfile.v0",
			"--local", "context="+dir, "--local", "dockerfile="+dir, "--output", "type=tar,dest="+tarball))
	}
	return mirrorEngine{
		engine: engine{files: func(t *testing.T, reference string) map[string]string {
			tarball, err := build(t, reference)
			require.NoError(t, err)
			f, err := os.Open(tarball)
			require.NoError(t, err)
			defer f.Close()
			found := map[string]string{}
			readFiles(t, f, found)
			return found
		}},
		pull: func(t *testing.T, reference string) error {
			_, err := build(t, reference)
			return err
		},
	}
}
