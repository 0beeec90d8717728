package interop

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/testtool"
)

// crictl pulls as the kubelet does.
func crictl(t *testing.T, address, reference string) error {
	return failure(try(t, "crictl", "--runtime-endpoint", address, "--image-endpoint", address, "pull", reference))
}

// mirrorContainerdCRI starts a containerd as nodes of Kubernetes have it, with a recipe of its
// configuration. It pulls by itself: through ctr its client does.
func mirrorContainerdCRI(t *testing.T, m *mirrored, recipe string) mirrorEngine {
	programs(t, crictlPrograms)
	t.Setenv("CONTAINERD_NAMESPACE", "k8s.io")
	hosts := containerdMirror(t, "docker.io", "registry-1.docker.io", m.serve, "")
	e := connectContainerd(t, (&daemon{start: func(t *testing.T, d *daemon) string {
		return startRecipeContainerd(t, d, recipe, hosts)
	}}).own(t, ""))
	return mirrorEngine{engine: e, pull: func(t *testing.T, reference string) error { return crictl(t, "unix://"+e.socket, reference) }}
}

// startRecipeContainerd starts a containerd with a recipe of its configuration, and the
// mirrors in a directory.
func startRecipeContainerd(t *testing.T, d *daemon, recipe, hosts string) string {
	testtool.NeedRoot(t)
	testtool.Need(t, "ctr")
	dir := shortDir(t, d)
	config, socket := filepath.Join(dir, "config.toml"), filepath.Join(dir, "containerd.sock")
	writeRecipe(t, config, recipe, "", "/etc/containerd/certs.d", hosts)
	start(t, d, "containerd successfully booted", "containerd", "--config", config, "--root", dir+"/root", "--state", dir+"/state", "--address", socket)
	return "containerd://" + socket
}

// mirrorContainerd2 starts a containerd 2, which itself fetches what ctr pulls. Without
// --skip-metadata ctr fetches the configs of foreign platforms too.
func mirrorContainerd2(t *testing.T, m *mirrored) mirrorEngine {
	programs(t, containerdPrograms)
	hosts := containerdMirror(t, "docker.io", "registry-1.docker.io", m.serve, "")
	e := connectContainerd(t, (&daemon{start: containerd.start}).own(t, ""))
	return mirrorEngine{engine: e, pull: func(t *testing.T, reference string) error {
		return failure(try(t, "ctr", "--address", e.socket, "images", "pull", "--skip-metadata", "--hosts-dir", hosts, reference))
	}}
}

// mirrorCRIO starts a CRI-O. No pod is made, so that it needs no network, and no program that
// pins namespaces.
func mirrorCRIO(t *testing.T, m *mirrored) mirrorEngine {
	programs(t, crictlPrograms)
	programs(t, crioPrograms)
	testtool.Need(t, "conmon") // CRI-O looks for it when it starts
	runc := testtool.Need(t, "runc")
	d := (&daemon{start: func(t *testing.T, d *daemon) string {
		dir := shortDir(t, d)
		// CRI-O makes these two by itself, but not the others.
		flags := []string{"--root", dir + "/root", "--runroot", dir + "/run"}
		for _, name := range []string{"config-dir", "registries-conf-dir", "cni-config-dir", "hooks-dir"} {
			require.NoError(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
		}
		for _, name := range []string{
			"config-dir", "registries-conf-dir", "cni-config-dir", "hooks-dir", "listen", "version-file", "version-file-persist",
			"clean-shutdown-file", "container-exits-dir", "container-attach-socket-dir", "namespaces-dir",
		} {
			flags = append(flags, "--"+name, filepath.Join(dir, name))
		}
		policy := filepath.Join(dir, "policy.json")
		require.NoError(t, os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600))
		start(t, d, "starting plugins", "crio", append(flags, "--config", "", "--registries-conf", os.DevNull, "--signature-policy", policy,
			"--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--conmon-cgroup", "pod",
			"--default-runtime", "runc", "--runtimes", "runc:"+runc+":"+dir+"/runc", "--pinns-path", "/bin/true",
			"--nri-disable-connections", "--irqbalance-config-restore-file", "disable", "--log-level", "info")...)
		return "unix://" + dir + "/listen"
	}}).own(t, "")
	address := d.use(t)
	mirror := func(t *testing.T, at string) { // it reads its configuration when it starts
		podmanMirror(t, filepath.Join(d.dir, "registries-conf-dir", "cache.conf"), "docker.io", at)
		d.kill(t)
		d.start(t, d)
	}
	mirror(t, m.serve+"/docker.io")
	files := func(t *testing.T, _ string) map[string]string { // of all images
		found := map[string]string{}
		layers, err := filepath.Glob(d.dir + "/root/overlay/*/diff")
		require.NoError(t, err)
		for _, layer := range layers {
			readDir(t, layer, found)
		}
		return found
	}
	return mirrorEngine{engine{files: files}, func(t *testing.T, reference string) error { return crictl(t, address, reference) }, mirror}
}
