package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/dockercache/dockercache/cache/history"
	"github.com/dockercache/dockercache/cache/timing"
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

	assert.Contains(t, run(true, "engine-root", "build", "-dir", cache, "-size", "1GiB", image), "built")
	assert.Contains(t, run(true, "engine-root", "refresh", "-dir", cache), "unchanged")
	for range 2 {
		assert.Contains(t, run(true, "./job-started.sh"), "cloned")
		has()
		assert.Contains(t, run(true, "engine-root", "list", "-dir", cache), "mounted")
		run(false, "./job-started.sh") // the engine of the job before still runs
		assert.Contains(t, run(false, "engine-root", "discard", root), "(dockerd)")
		run(true, "./job-completed.sh")
		assert.NotContains(t, run(true, "engine-root", "list", "-dir", cache), dir+"/") // other tests may have clones

	}
	assert.Contains(t, run(true, "engine-root", "verify", "-json", "-dir", cache), `"outcome":"verified"`)

	// A job whose end was not noticed.
	assert.Contains(t, run(true, "engine-root", "clone", "-dir", cache, "-mount", root, image), "cloned")
	assert.Contains(t, run(true, "./job-started.sh"), "cloned")
	run(true, "./job-completed.sh")

	// Another image whose tarball would have the same name is not in the template.
	assert.Contains(t, run(false, "engine-root", "clone", "-dir", cache, "-mount", root, "registry.test/ci/image:jammy-2"), "and not registry.test/ci/image:jammy-2")
	assert.Contains(t, run(false, "engine-root", "clone", "-dir", cache, "-mount", root, image+"@sha256:"+strings.Repeat("0", 64)), "and not")

	// What was cloned is recorded, and for whom there was nothing.
	records, skipped, err := history.Read(cache, time.Time{})
	require.NoError(t, err)
	assert.Zero(t, skipped)
	outcomes := map[string]int{}
	for _, r := range records {
		assert.Equal(t, history.Clone, r.Kind)
		outcomes[r.Outcome]++
		if r.Outcome == "cloned" {
			assert.Equal(t, image, r.Image)
			for _, p := range []timing.Phase{timing.Look, timing.Clone, timing.Mount} {
				assert.Contains(t, r.Phases, p)
			}
		}
	}
	assert.Positive(t, outcomes["cloned"])
	assert.Equal(t, 3, outcomes["missing"], "a job before there was a template, and two other images")

	// The machine's own data root.
	run(true, "./machine-image.sh")
	run(true, start)
	has()
	run(true, stop)

	// The pod: its first container clones, the second one discards when it is to end.
	at := filepath.Join(dir, "pod")
	require.NoError(t, os.Mkdir(at, 0o755))
	raw, err := os.ReadFile("pod.yml")
	require.NoError(t, err)
	var pod struct {
		Spec struct {
			InitContainers []struct{ Command []string } `yaml:"initContainers"`
		}
	}
	require.NoError(t, yaml.Unmarshal(raw, &pod))
	for range 2 { // the second one finds what the first has left
		clone := pod.Spec.InitContainers[0].Command
		assert.Contains(t, run(true, clone[0], clone[1], inTest(clone[2], cache, at)), "cloned")
	}
	discard := pod.Spec.InitContainers[1].Command
	cmd := exec.Command(discard[0], discard[1], strings.Replace(inTest(discard[2], cache, at), "sleep", "echo ready; sleep", 1))
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	printed, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(printed).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	_, err = cmd.Process.Wait() // not for the pipe, which sleep has too
	require.NoError(t, err)
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // sleep
	// Clones elsewhere are those of other tests.
	assert.NotContains(t, run(true, "engine-root", "list", "-dir", cache), dir+"/")
}

// inTest is a command of the pod with the paths of the test.
func inTest(command, cache, at string) string {
	return strings.NewReplacer("/srv/cache", cache, "/roots/docker", at, "registry.example/", "registry.test/").Replace(command)
}
