package interop

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/internal/testtool"
)

// newDockerd names the program of a Docker Engine that is newer than the one that
// Debian has: .ci/run builds it from its Go module.
const newDockerd = "DOCKERCACHE_NEW_DOCKERD"

// engines are those that images are loaded into, each with what starts it.
var engines = []struct {
	name  string
	start func(t *testing.T) engine
}{
	{"docker classic", func(t *testing.T) engine { return connect(t, startDocker(t)[1]) }},
	{"podman", func(t *testing.T) engine { return connect(t, startPodman(t)) }},
	{"containerd", connectContainerd},
	{"new docker classic", func(t *testing.T) engine { return connect(t, startNewDocker(t, false)) }},
	{"new docker containerd", func(t *testing.T) engine { return connect(t, startNewDocker(t, true)) }},
}

// onEngines runs a test on each engine that is there. All are sent archives.
func onEngines(t *testing.T, test func(t *testing.T, e engine)) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) { test(t, e.start(t)) })
	}
}

// onPullers runs a test on each engine that would rather pull, and does.
func onPullers(t *testing.T, test func(t *testing.T, e engine)) {
	for _, e := range engines {
		if strings.HasSuffix(e.name, "classic") {
			continue
		}
		t.Run("pull "+e.name, func(t *testing.T) {
			engine := e.start(t)
			engine.pulled, engine.byBlob = true, true // podman too knows blobs that it has pulled
			test(t, engine)
		})
	}
}

// onAll runs a test on each engine by each road.
func onAll(t *testing.T, test func(t *testing.T, e engine)) {
	onEngines(t, test)
	onPullers(t, test)
}

// engine is one that runs.
type engine struct {
	loader.Engine
	pulled     bool // else it is sent archives
	address    string
	byBlob     bool   // it knows layers by the digests of their blobs
	keepsBlobs bool   // that it was sent whole, also when the rest never came
	socket     string // that the loader connects to
	// What the loader does not do:
	files      func(t *testing.T, reference string) map[string]string // of an image
	remove     func(t *testing.T, reference string)
	containers func(t *testing.T) int // how many there are
}

// afterABreak is what a load may be that comes after one which was interrupted: what
// a pull has fetched by then may be there, or not.
func (e engine) afterABreak() []loader.Outcome {
	switch {
	case e.pulled:
		return []loader.Outcome{loader.Loaded, loader.Delta}
	case e.keepsBlobs:
		return []loader.Outcome{loader.Delta}
	}
	return []loader.Outcome{loader.Loaded}
}

// Pulls makes an engine a [loader.Puller].
func (e engine) Pulls(ctx context.Context) bool {
	return e.pulled && e.Engine.(loader.Puller).Pulls(ctx)
}

// ProvesLayers makes an engine a [loader.LayerProver].
func (e engine) ProvesLayers(ctx context.Context) bool {
	prover, ok := e.Engine.(loader.LayerProver)
	return ok && prover.ProvesLayers(ctx)
}

func (e engine) Pull(ctx context.Context, reference string) error {
	return e.Engine.(loader.Puller).Pull(ctx, reference)
}

// connect connects to what speaks Docker's API.
func connect(t *testing.T, address string) engine {
	t.Helper()
	docker, err := loader.Connect(t.Context(), loader.Host{Address: address})
	require.NoError(t, err)
	api := newAPI(t, address)
	says, err := docker.Describe(t.Context())
	require.NoError(t, err)
	t.Log(says)
	return engine{
		Engine: docker, address: address, byBlob: strings.Contains(says, "containerd store"), socket: strings.TrimPrefix(address, "unix://"),
		files: api.files, remove: api.remove, containers: api.containers,
	}
}

// connectContainerd starts a containerd and connects to it, through ctr.
func connectContainerd(t *testing.T) engine {
	ctr := startContainerd(t)
	address := "containerd://" + ctr[1]
	containerd, err := loader.ConnectContainerd(t.Context(), address)
	require.NoError(t, err)
	client := func(t *testing.T, args ...string) string {
		return run(t, "ctr", append(append([]string{}, ctr...), args...)...)
	}
	return engine{
		Engine: containerd, address: address, byBlob: true, keepsBlobs: true, socket: ctr[1],
		files: func(t *testing.T, reference string) map[string]string {
			at := t.TempDir()
			client(t, "images", "mount", reference, at)
			defer client(t, "images", "unmount", "--rm", at)
			found := map[string]string{}
			require.NoError(t, filepath.WalkDir(at, func(path string, e fs.DirEntry, err error) error {
				if err != nil || !e.Type().IsRegular() {
					return err
				}
				content, err := os.ReadFile(path)
				found[strings.TrimPrefix(path, at+"/")] = string(content)
				return err
			}))
			return found
		},
		remove:     func(t *testing.T, reference string) { client(t, "images", "rm", "--sync", reference) },
		containers: func(t *testing.T) int { return len(strings.Fields(client(t, "containers", "ls", "-q"))) },
	}
}

// startNewDocker starts the newer Docker Engine, with containerd's store or without.
func startNewDocker(t *testing.T, containerd bool) string {
	t.Helper()
	testtool.NeedRoot(t)
	program := os.Getenv(newDockerd)
	if program == "" {
		testtool.Missing(t, "%s does not name the program of a Docker Engine of version 29 or later", newDockerd)
	}
	testtool.Need(t, "containerd")
	if containerd {
		return startDockerd(t, program, `{"features":{"containerd-snapshotter":true}}`)
	}
	return startDockerd(t, program, `{"features":{"containerd-snapshotter":false}}`, "--storage-driver=overlay2")
}

// startPodman starts podman's service for Docker's API.
func startPodman(t *testing.T) string {
	t.Helper()
	testtool.NeedRoot(t)
	dir := shortDir(t)
	// podman mounts its own directory, and leaves it so.
	t.Cleanup(func() { _ = exec.Command("umount", dir+"/root/overlay").Run() })
	socket := "unix://" + dir + "/podman.sock"
	start(t, "API service listening", "podman", "--log-level", "info", "--root", dir+"/root", "--runroot", dir+"/run",
		"--storage-driver", "overlay", "system", "service", "--time", "0", socket)
	return socket
}
