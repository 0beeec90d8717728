package scripttest

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dockercache/dockercache/internal/enginetest"
)

// RunEngines runs the scripts as [Run] does, against an engine in this process, $DOCKER_HOST, of
// each kind, and with a directory dir that has the tarballs of registry.test/ci/image:jammy-1, of
// the layers a and b, and :noble-1, of a, b, c; and with a bucket. setup, when not nil, sets up
// more.
func RunEngines(t *testing.T, setup func(env *testscript.Env), commands Commands) {
	t.Helper()
	for name, kind := range map[string]enginetest.Kind{"classic": enginetest.Classic, "containerd": enginetest.Containerd, "podman": enginetest.Podman} {
		t.Run(name, func(t *testing.T) {
			Run(t, func(env *testscript.Env) error {
				e, err := enginetest.Start(enginetest.Options{Kind: kind})
				if err != nil {
					return err
				}
				env.Defer(e.Close)
				env.Values["engine"] = e
				env.Setenv("DOCKER_HOST", e.Address())
				SetUpBucket(t, env)
				if setup != nil {
					setup(env)
				}
				return errors.Join(
					Stock(filepath.Join(env.WorkDir, "dir", "jammy_main.tar"), "registry.test/ci/image:jammy-1", 5000, "a", "b"),
					Stock(filepath.Join(env.WorkDir, "dir", "noble_main.tar"), "registry.test/ci/image:noble-1", 5000, "a", "b", "c"))
			}, commands)
		})
	}
}

// Engine is the engine of a script of [RunEngines].
func Engine(ts *testscript.TestScript) *enginetest.Engine {
	return ts.Value("engine").(*enginetest.Engine)
}
