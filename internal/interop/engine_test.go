package interop

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/internal/testtool"
)

// newDockerd names the program of a Docker Engine that is newer than the one that
// Debian has: .ci/run builds it from its Go module.
const newDockerd = "DOCKERCACHE_NEW_DOCKERD"

// engines are those that images are loaded into, each started by its function,
// which returns its address.
var engines = []struct {
	name  string
	start func(t *testing.T) string
}{
	{"docker classic", func(t *testing.T) string { return startDocker(t)[1] }},
	{"podman", startPodman},
	{"new docker classic", func(t *testing.T) string { return startNewDocker(t, false) }},
	{"new docker containerd", func(t *testing.T) string { return startNewDocker(t, true) }},
}

// onEngines runs a test on each engine that is there.
func onEngines(t *testing.T, test func(t *testing.T, e engine)) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) { test(t, connect(t, e.start(t))) })
	}
}

// engine is one that runs.
type engine struct {
	*loader.Docker
	address string
	client  *http.Client // for what the loader does not do
}

func connect(t *testing.T, address string) engine {
	t.Helper()
	docker, err := loader.Connect(t.Context(), loader.Host{Address: address})
	require.NoError(t, err)
	socket := address[len("unix://"):]
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	says, err := docker.Describe(t.Context())
	require.NoError(t, err)
	t.Log(says)
	return engine{docker, address, &http.Client{Transport: transport}}
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
	config := `{"features":{"containerd-snapshotter":false}}`
	if containerd {
		config = `{"features":{"containerd-snapshotter":true}}`
	}
	dir := shortDir(t)
	path := filepath.Join(dir, "daemon.json")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	socket := "unix://" + dir + "/docker.sock"
	arguments := []string{"--iptables=false", "--ip6tables=false", "--bridge=none",
		"-H", socket, "--data-root", dir + "/data", "--exec-root", dir + "/exec", "--pidfile", dir + "/pid", "--config-file", path}
	if !containerd {
		arguments = append(arguments, "--storage-driver=overlay2")
	}
	start(t, "API listen on", program, arguments...)
	return socket
}

// startPodman starts podman's service for Docker's API.
func startPodman(t *testing.T) string {
	t.Helper()
	testtool.NeedRoot(t)
	dir := shortDir(t)
	socket := "unix://" + dir + "/podman.sock"
	start(t, "API service listening", "podman", "--log-level", "info", "--root", dir+"/root", "--runroot", dir+"/run",
		"--storage-driver", "overlay", "system", "service", "--time", "0", socket)
	return socket
}
