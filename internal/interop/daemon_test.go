package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/internal/testtool"
)

// daemon is an engine's server. The first test that needs it starts it, tests use it one
// after another, and TestMain ends it.
type daemon struct {
	start   func(t *testing.T, d *daemon) (address string)
	mu      sync.Mutex // held by the test that uses it
	address string     // "" before it runs
	ends    []func()
	// Of one that a single test uses:
	disk    string      // a small one of its own, in tmpfs's words; "" none
	dir     string      // of the start before, "" none
	process *os.Process // that was started last
}

// own returns a daemon that is started as another one, for this test alone.
func (d *daemon) own(t *testing.T, disk string) *daemon {
	t.Helper()
	mine := &daemon{start: d.start, disk: disk}
	t.Cleanup(mine.end)
	mine.Cleanup(func() { // what a killed one has left
		unmountBelow(mine.dir)
		_ = os.RemoveAll(mine.dir)
	})
	return mine
}

// unmountBelow unmounts what is mounted below a directory.
func unmountBelow(dir string) {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	lines := strings.Split(string(mounts), "\n")
	for _, line := range slices.Backward(lines) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			_ = unix.Unmount(f[1], unix.MNT_DETACH)
		}
	}
}

// kill kills the daemon.
func (d *daemon) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, d.process.Kill())
	_, err := d.process.Wait() // else its process number still counts as one that runs
	require.NoError(t, err)
}

// restart starts the daemon again, with what it has on the disk, as after a start of the
// machine: nothing else that it has started runs, or is in memory.
func (d *daemon) restart(t *testing.T) {
	t.Helper()
	unmountBelow(d.dir)
	for _, name := range []string{"exec", "pid", "run", "state"} {
		require.NoError(t, os.RemoveAll(filepath.Join(d.dir, name)))
	}
	require.Equal(t, d.address, d.start(t, d))
}

// end ends the daemon.
func (d *daemon) end() {
	for i := range d.ends {
		d.ends[len(d.ends)-1-i]()
	}
}

var (
	docker              = &daemon{start: startDocker}
	podman              = &daemon{start: startPodman}
	containerd          = &daemon{start: func(t *testing.T, d *daemon) string { return startContainerd(t, d, "") }}
	eagerContainerd     = &daemon{start: func(t *testing.T, d *daemon) string { return startContainerd(t, d, eagerGC) }}
	criContainerd       = &daemon{start: startCRIContainerd}
	newDockerClassic    = &daemon{start: func(t *testing.T, d *daemon) string { return startNewDocker(t, d, false) }}
	newDockerContainerd = &daemon{start: func(t *testing.T, d *daemon) string { return startNewDocker(t, d, true) }}
	daemons             = []*daemon{docker, podman, containerd, eagerContainerd, criContainerd, newDockerClassic, newDockerContainerd}
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
		group.Go(d.end)
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
	program := newDockerProgram(t)
	if containerd {
		return startDockerd(t, d, program, `{"features":{"containerd-snapshotter":true}}`)
	}
	return startDockerd(t, d, program, `{"features":{"containerd-snapshotter":false}}`, "--storage-driver=overlay2")
}

// newDockerProgram returns the newer Docker Engine's program.
func newDockerProgram(t *testing.T) string {
	t.Helper()
	testtool.NeedRoot(t)
	program := os.Getenv(newDockerd)
	if program == "" {
		testtool.Missing(t, "%s does not name the program of a Docker Engine of version 29 or later", newDockerd)
	}
	testtool.Need(t, "containerd")
	return program
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
	return startContainerdWith(t, d, `disabled_plugins = ["io.containerd.grpc.v1.cri"]`, gc)
}

// startCRIContainerd starts a containerd as Kubernetes has it: with its plugin, which needs
// no network as long as no pod is made.
func startCRIContainerd(t *testing.T, d *daemon) string {
	t.Helper()
	return startContainerdWith(t, d, "", `
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_port = "0"
`)
}

// startContainerdWith starts a containerd with these lines at the beginning and the end of its
// configuration.
func startContainerdWith(t *testing.T, d *daemon, first, last string) string {
	t.Helper()
	testtool.NeedRoot(t)
	testtool.Need(t, "ctr")
	dir := shortDir(t, d)
	config := filepath.Join(dir, "config.toml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
version = 2
root = "%[1]s/root"
state = "%[1]s/state"
%[2]s
[grpc]
  address = "%[1]s/containerd.sock"
%[3]s`, dir, first, last), 0o600))
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
