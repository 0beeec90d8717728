package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/examples/internal/scripttest"
	"github.com/dockercache/dockercache/internal/testtool"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"engine-root": main})
}

// The scripts have a directory dir that has the tarballs of registry.test/ci/image:jammy-1,
// of the layers a and b, and :noble-1, of a, b, c.
func TestScripts(t *testing.T) {
	scripttest.Run(t, func(env *testscript.Env) error {
		return errors.Join(
			scripttest.Stock(filepath.Join(env.WorkDir, "dir", "jammy_main.tar"), "registry.test/ci/image:jammy-1", 5000, "a", "b"),
			scripttest.Stock(filepath.Join(env.WorkDir, "dir", "noble_main.tar"), "registry.test/ci/image:noble-1", 5000, "a", "b", "c"))
	}, scripttest.Commands{})
}

// The uses that README.md shows, as they are there, with Docker.
func TestUses(t *testing.T) {
	testtool.NeedMounts(t)
	testtool.NeedRoot(t)
	for _, program := range []string{"dockerd", "docker", "mkfs.ext4"} {
		testtool.Need(t, program)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	require.NoError(t, os.Mkdir(bin, 0o755))
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	cache, root := filepath.Join(dir, "cache"), filepath.Join(dir, "root")
	require.NoError(t, os.Mkdir(cache, 0o755))
	require.NoError(t, os.Mkdir(root, 0o755))
	const image = "registry.test/ci/image:jammy-1"
	require.NoError(t, scripttest.Stock(filepath.Join(cache, "jammy_main.tar"), image, 5000, "a", "b"))
	private, err := os.MkdirTemp("", "engine") // a socket's path is short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(private) })
	socket := "unix://" + private + "/s"
	// What systemctl does on a real machine.
	start := filepath.Join(private, "start")
	require.NoError(t, os.WriteFile(start, fmt.Appendf(nil, `#!/bin/sh
echo '{}' >%[1]s/config
dockerd --iptables=false --ip6tables=false --bridge=none -H %[2]s --data-root %[3]s --exec-root %[1]s/exec --pidfile %[1]s/pid --config-file %[1]s/config >%[1]s/log 2>&1 &
until grep -q 'API listen on' %[1]s/log; do kill -0 $! || exit 1; sleep 0.1; done
`, private, socket, root), 0o755))
	stop := filepath.Join(private, "stop")
	require.NoError(t, os.WriteFile(stop, fmt.Appendf(nil, "#!/bin/sh\nkill $(cat %[1]s/pid)\nwhile [ -e %[1]s/pid ]; do sleep 0.1; done\n", private), 0o755))
	run := func(ok bool, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "IMAGE="+image, "CACHE_DIR="+cache, "DATA_ROOT="+root, "START_ENGINE="+start, "STOP_ENGINE="+stop)
		out, err := cmd.CombinedOutput()
		require.Equal(t, ok, err == nil, "%s %v: %v\n%s", name, args, err, out)
		return string(out)
	}
	has := func() {
		t.Helper()
		run(true, "docker", "-H", socket, "image", "inspect", image)
	}

	// A job before there is a template: the engine starts without the image.
	assert.Contains(t, run(true, "./job-started.sh"), "no such template")
	run(false, "docker", "-H", socket, "image", "inspect", image)
	run(true, "./job-completed.sh")
	run(true, "find", root, "-mindepth", "1", "-delete")

	assert.Contains(t, run(true, "engine-root", "build", "-dir", cache, "-size", "1GiB", image), "built")
	assert.Contains(t, run(true, "engine-root", "refresh", "-dir", cache), "unchanged")
	for range 2 {
		assert.Contains(t, run(true, "./job-started.sh"), "cloned")
		has()
		assert.Contains(t, run(true, "engine-root", "list", "-dir", cache), "mounted")
		assert.Contains(t, run(false, "engine-root", "discard", root), "(dockerd)")
		run(true, "./job-completed.sh")
		assert.NotContains(t, run(true, "engine-root", "list", "-dir", cache), "mounted")
	}
	assert.Contains(t, run(true, "engine-root", "verify", "-json", "-dir", cache), `"outcome":"verified"`)

	// The machine's own data root.
	run(true, "./machine-image.sh")
	run(true, start)
	has()
	run(true, stop)

	// The commands of the pod.
	pod, err := os.ReadFile("pod.yml")
	require.NoError(t, err)
	for _, line := range regexp.MustCompile(`command: \[(engine-root, [^]]+)\]`).FindAllStringSubmatch(string(pod), -1) {
		args := strings.Split(line[1], ", ")
		for i, a := range args {
			args[i] = strings.NewReplacer("/srv/cache", cache, "/roots/docker", mount(t, dir), "registry.example/", "registry.test/").Replace(a)
		}
		run(true, args[0], args[1:]...)
	}
	assert.NotContains(t, run(true, "engine-root", "list", "-dir", cache), "mounted")
}

// mount is an empty directory.
func mount(t *testing.T, dir string) string {
	t.Helper()
	at := filepath.Join(dir, "pod")
	require.NoError(t, os.MkdirAll(at, 0o755))
	return at
}
