package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/testtool"
)

// daemon is an engine's server. The first test that needs it starts it, tests use it one
// after another, and TestMain ends it.
type daemon struct {
	start   func(t *testing.T, d *daemon) (address string)
	mu      sync.Mutex // held by the test that uses it
	address string     // "" before it runs
	ends    []func()
}

var (
	docker              = &daemon{start: startDocker}
	podman              = &daemon{start: startPodman}
	containerd          = &daemon{start: func(t *testing.T, d *daemon) string { return startContainerd(t, d, "") }}
	eagerContainerd     = &daemon{start: func(t *testing.T, d *daemon) string { return startContainerd(t, d, eagerGC) }}
	newDockerClassic    = &daemon{start: func(t *testing.T, d *daemon) string { return startNewDocker(t, d, false) }}
	newDockerContainerd = &daemon{start: func(t *testing.T, d *daemon) string { return startNewDocker(t, d, true) }}
	daemons             = []*daemon{docker, podman, containerd, eagerContainerd, newDockerClassic, newDockerContainerd}
)

// use returns the address of the daemon, which no other test uses until this one has ended.
func (d *daemon) use(t *testing.T) string {
	t.Helper()
	d.mu.Lock()
	t.Cleanup(d.mu.Unlock)
	if d.address == "" {
		d.address = d.start(t, d)
	}
	return d.address
}

// Cleanup registers what is called when the daemon ends, last in first out.
func (d *daemon) Cleanup(end func()) { d.ends = append(d.ends, end) }

// endDaemons ends those that run.
func endDaemons() {
	var group sync.WaitGroup
	for _, d := range daemons {
		group.Go(func() {
			for i := range d.ends {
				d.ends[len(d.ends)-1-i]()
			}
		})
	}
	group.Wait()
}

// startDocker starts Debian's Docker Engine.
func startDocker(t *testing.T, d *daemon) string {
	t.Helper()
	testtool.Need(t, "docker")
	return startDockerd(t, d, "dockerd", "{}", "--storage-driver=overlay2")
}

// newDockerd names the program of a Docker Engine that is newer than the one that
// Debian has: .ci/run builds it from its Go module.
const newDockerd = "DOCKERCACHE_NEW_DOCKERD"

// startNewDocker starts the newer Docker Engine, with containerd's store or without.
func startNewDocker(t *testing.T, d *daemon, containerd bool) string {
	t.Helper()
	testtool.NeedRoot(t)
	program := os.Getenv(newDockerd)
	if program == "" {
		testtool.Missing(t, "%s does not name the program of a Docker Engine of version 29 or later", newDockerd)
	}
	testtool.Need(t, "containerd")
	if containerd {
		return startDockerd(t, d, program, `{"features":{"containerd-snapshotter":true}}`)
	}
	return startDockerd(t, d, program, `{"features":{"containerd-snapshotter":false}}`, "--storage-driver=overlay2")
}

// startDockerd starts a Docker Engine by its program, with a configuration that
// keeps the machine's own out, and returns its address.
func startDockerd(t *testing.T, d *daemon, program, config string, more ...string) string {
	t.Helper()
	testtool.NeedRoot(t)
	dir := shortDir(t, d)
	path := filepath.Join(dir, "daemon.json")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	socket := "unix://" + dir + "/docker.sock"
	start(t, d, "API listen on", program, append([]string{
		"--iptables=false", "--ip6tables=false", "--bridge=none",
		"-H", socket, "--data-root", dir + "/data", "--exec-root", dir + "/exec", "--pidfile", dir + "/pid",
		"--config-file", path,
	}, more...)...)
	return socket
}

// startContainerd starts a containerd with these settings of its garbage collector, and
// returns its address.
func startContainerd(t *testing.T, d *daemon, gc string) string {
	t.Helper()
	testtool.NeedRoot(t)
	testtool.Need(t, "ctr")
	dir := shortDir(t, d)
	config := filepath.Join(dir, "config.toml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "%[1]s/containerd.sock"
%[2]s`, dir, gc), 0o600))
	start(t, d, "containerd successfully booted", "containerd", "--config", config)
	return "containerd://" + dir + "/containerd.sock"
}

// eagerGC makes containerd collect garbage all the time. By default it does after an image
// was removed or replaced too, but not at once.
const eagerGC = `
[plugins."io.containerd.gc.v1.scheduler"]
  mutation_threshold = 1
  schedule_delay = "0s"
  startup_delay = "0s"
  pause_threshold = 0.5
`

// startPodman starts podman's service for Docker's API.
func startPodman(t *testing.T, d *daemon) string {
	t.Helper()
	testtool.NeedRoot(t)
	dir := shortDir(t, d)
	// podman mounts its own directory, and leaves it so.
	d.Cleanup(func() { _ = exec.Command("umount", dir+"/root/overlay").Run() })
	socket := "unix://" + dir + "/podman.sock"
	start(t, d, "API service listening", "podman", append(podmanAt(dir), "--log-level", "info", "system", "service", "--time", "0", socket)...)
	return socket
}

// podmanAt returns the arguments with which podman has its storage in the directory.
func podmanAt(dir string) []string {
	return []string{"--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "overlay"}
}
