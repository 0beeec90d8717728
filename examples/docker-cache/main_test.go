package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry/registrytest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"docker-cache": main})
}

// The scripts run the program against two registries in this process: $OWN and
// $MIRROR, as HOST:PORT. Both have team/image with the tags jammy-1 and
// noble-1; $OWN alone has team/image:own-1, and some that cannot be stocked.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			own, err := registrytest.Start()
			if err != nil {
				return err
			}
			mirror, err := registrytest.Start()
			if err != nil {
				return err
			}
			env.Defer(own.Close)
			env.Defer(mirror.Close)
			env.Values["own"], env.Values["mirror"] = own, mirror
			env.Setenv("OWN", own.Host())
			env.Setenv("MIRROR", mirror.Host())
			for _, tag := range []string{"jammy-1", "noble-1", "own-1"} {
				image, err := random.Image(50_000, 3)
				if err != nil {
					return err
				}
				if _, err := own.Push("team/image:"+tag, image); err != nil {
					return err
				}
				if tag == "own-1" {
					continue
				}
				if _, err := mirror.Push("team/image:"+tag, image); err != nil {
					return err
				}
			}
			own.PushManifest("team/html:t-1", []byte("<html>"), types.OCIManifestSchema1)
			own.PushManifest("team/schema1:t-1", []byte(`{"schemaVersion":1}`), types.DockerManifestSchema1)
			own.PushManifest("team/index:t-1", []byte(`{"schemaVersion":2,"mediaType":"`+string(types.OCIImageIndex)+`","manifests":[{"mediaType":"`+string(types.OCIManifestSchema1)+`","digest":"sha256:`+fmt.Sprintf("%064d", 0)+`","size":1,"platform":{"os":"linux","architecture":"s390x"}}]}`), types.OCIImageIndex)
			if err := setUpBuild(env, own.Host()); err != nil {
				return err
			}
			return os.Mkdir(filepath.Join(env.WorkDir, "dir"), 0o755)
		},
		Cmds: withCommands(buildCmds, scriptCommands{
			// quirks own|mirror JSON: what the registry does wrong from now on.
			"quirks": func(ts *testscript.TestScript, _ bool, args []string) {
				var q registrytest.Quirks
				ts.Check(json.Unmarshal([]byte(args[1]), &q))
				ts.Value(args[0]).(*registrytest.Server).SetQuirks(q)
			},
			// exits CODE COMMAND...: the exit code, which testscript does not tell.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				code := 0
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					code = exit.ExitCode()
				}
				if fmt.Sprint(code) != args[0] {
					ts.Fatalf("exit code %d, want %s", code, args[0])
				}
			},
			// stop own|mirror: the registry is gone.
			"stop": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Value(args[0]).(*registrytest.Server).Close()
			},
			// holds DIR FILE...: these files and no other, dot files included, but
			// for what says when a tarball was last used.
			"holds": func(ts *testscript.TestScript, _ bool, args []string) {
				entries, err := os.ReadDir(ts.MkAbs(args[0]))
				ts.Check(err)
				var have []string
				for _, e := range entries {
					if !strings.HasSuffix(e.Name(), ".mark") {
						have = append(have, e.Name())
					}
				}
				if fmt.Sprint(have) != fmt.Sprint(args[1:]) {
					ts.Fatalf("%s holds %q, want %q", args[0], have, args[1:])
				}
			},
		}),
	})
}

type scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string)

func withCommands(some, others scriptCommands) scriptCommands {
	maps.Copy(others, some)
	return others
}

// The field names and their types are a contract.
func TestJSONFields(t *testing.T) {
	raw, err := json.Marshal(result{})
	require.NoError(t, err)
	assert.Equal(t, `{"image":"","source":"","tarball":"","digest":"","outcome":"","bytes_total":0,"bytes_downloaded":0,"bytes_reused":0,"bytes_cloned":0,"bytes_copied":0,"seconds":0,"error":""}`, string(raw))
}

// A signal in the middle of a layer: exit code 130, nothing under the final
// name, and the next run leaves nothing but the tarball.
func TestSignals(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		server := registrytest.New(t)
		image, err := random.Image(5_000_000, 2)
		require.NoError(t, err)
		ref, err := server.Push("team/image:jammy-1", image)
		require.NoError(t, err)
		stalled := make(chan struct{})
		server.SetQuirks(registrytest.Quirks{Stall: true, Stalled: stalled})
		dir := t.TempDir()
		program, err := exec.LookPath("docker-cache") // testscript.Main put it on PATH
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // ends a test that would hang
		defer cancel()
		cmd := exec.CommandContext(ctx, program, "-dir", dir, "-branch", "main", "-json", ref)
		require.NoError(t, cmd.Start())
		<-stalled // a layer is half there
		require.NoError(t, cmd.Process.Signal(signal))
		var exit *exec.ExitError
		require.ErrorAs(t, cmd.Wait(), &exit)
		assert.Equal(t, 130, exit.ExitCode())
		for _, e := range entries(t, dir) {
			assert.True(t, strings.HasPrefix(e.Name(), "."), "%s is no final name", e.Name())
		}

		// The next run goes on where this one stopped.
		server.SetQuirks(registrytest.Quirks{})
		out, err := exec.CommandContext(ctx, program, "-dir", dir, "-branch", "main", "-json", ref).Output()
		require.NoError(t, err)
		var r result
		require.NoError(t, json.Unmarshal(out, &r))
		assert.Equal(t, "stocked", r.Outcome)
		require.Len(t, entries(t, dir), 1)
		assert.Equal(t, "jammy_main.tar", entries(t, dir)[0].Name())
	}
}

func entries(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	found, err := os.ReadDir(dir)
	require.NoError(t, err)
	return found
}
