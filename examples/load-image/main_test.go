package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/internal/enginetest"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"load-image": main})
}

// stock writes the tarball of an image of such layers, as docker-cache does.
func stock(dir, name, ref string, size int, layers ...string) error {
	d, err := cache.OpenDir(dir, nil)
	if err != nil {
		return err
	}
	return tarballtest.Stock(d, name, ref, size, layers...)
}

// The scripts run the program against an engine in this process, $DOCKER_HOST, of
// each kind, and with a directory dir that has the tarballs of
// registry.test/ci/image:jammy-1, of the layers a and b, and :noble-1, of a, b, c.
func TestScripts(t *testing.T) {
	for name, o := range map[string]enginetest.Options{
		"classic":    {Kind: enginetest.Classic},
		"containerd": {Kind: enginetest.Containerd},
		"podman":     {Kind: enginetest.Podman},
	} {
		t.Run(name, func(t *testing.T) { runScripts(t, o) })
	}
}

func runScripts(t *testing.T, o enginetest.Options) {
	engine := func(ts *testscript.TestScript) *enginetest.Engine { return ts.Value("engine").(*enginetest.Engine) }
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			e, err := enginetest.Start(o)
			if err != nil {
				return err
			}
			env.Defer(e.Close)
			env.Values["engine"] = e
			env.Setenv("DOCKER_HOST", e.Address())
			env.Setenv("GORACE", "atexit_sleep_ms=0") // a second for each command otherwise
			dir := filepath.Join(env.WorkDir, "dir")
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			return errors.Join(
				stock(dir, "jammy_main.tar", "registry.test/ci/image:jammy-1", 5000, "a", "b"),
				stock(dir, "noble_main.tar", "registry.test/ci/image:noble-1", 5000, "a", "b", "c"))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// stock FILE REF LAYER...: what docker-cache would write there.
			"stock": func(ts *testscript.TestScript, _ bool, args []string) {
				path := ts.MkAbs(args[0])
				ts.Check(stock(filepath.Dir(path), filepath.Base(path), args[1], 5000, args[2:]...))
			},
			// damage FILE: a byte of its last layer is another.
			"damage": func(ts *testscript.TestScript, _ bool, args []string) {
				tarball, err := cache.ReadTarball(ts.MkAbs(args[0]))
				ts.Check(err)
				segments := tarball.Layout.Segments()
				last := segments[len(segments)-2]
				f, err := os.OpenFile(tarball.Path, os.O_RDWR, 0)
				ts.Check(err)
				one := make([]byte, 1)
				_, err = f.ReadAt(one, last.Offset+last.Length/2)
				ts.Check(err)
				_, err = f.WriteAt([]byte{^one[0]}, last.Offset+last.Length/2)
				ts.Check(errors.Join(err, f.Close()))
			},
			// quirks JSON: what the engine does wrong from now on.
			"quirks": func(ts *testscript.TestScript, _ bool, args []string) {
				var q enginetest.Quirks
				ts.Check(json.Unmarshal([]byte(args[0]), &q))
				engine(ts).SetQuirks(q)
			},
			// named REF...: these references, and no other, name images that can be
			// used, and nothing is left of the proof.
			"named": func(ts *testscript.TestScript, _ bool, args []string) {
				var have []string
				for name := range engine(ts).Names() {
					_, err := engine(ts).Files(name)
					ts.Check(err)
					have = append(have, name)
				}
				slices.Sort(have)
				if !slices.Equal(have, args) {
					ts.Fatalf("the engine has %q, want %q", have, args)
				}
				if n := engine(ts).Containers(); n > 0 {
					ts.Fatalf("%d containers are left", n)
				}
			},
			// contains REF LAYER...: the image has the files of these layers.
			"contains": func(ts *testscript.TestScript, _ bool, args []string) {
				files, err := engine(ts).Files(args[0])
				ts.Check(err)
				for _, l := range args[1:] {
					if files["opt/"+l+"/name"] != l+"\n" {
						ts.Fatalf("%s lacks the layer %s", args[0], l)
					}
				}
				if len(files) != 2*len(args[1:]) {
					ts.Fatalf("%s has %d files", args[0], len(files))
				}
			},
			// loads N: so many archives were sent, or images pulled, since the last time.
			"loads": func(ts *testscript.TestScript, _ bool, args []string) {
				if n := len(engine(ts).Loads()) + engine(ts).Pulls(); strconv.Itoa(n) != args[0] {
					ts.Fatalf("%d loads, want %s", n, args[0])
				}
				engine(ts).Forget()
			},
			// stop: the engine is gone.
			"stop": func(ts *testscript.TestScript, _ bool, _ []string) { engine(ts).Close() },
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
		},
	})
}

// The field names and their types are a contract.
func TestJSONFields(t *testing.T) {
	raw, err := json.Marshal(result{})
	require.NoError(t, err)
	assert.Equal(t, `{"image":"","tarball":"","outcome":"","bytes_streamed":0,"bytes_total":0,"seconds":0,"error":""}`, string(raw))
}

// A signal in the middle of a load: exit code 130, the engine has nothing of it,
// and the next run is right.
func TestSignals(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		const ref = "registry.test/ci/image:jammy-1"
		dir := t.TempDir()
		require.NoError(t, stock(dir, "jammy_main.tar", ref, 6<<20, "a", "b"))
		engine := enginetest.New(t, enginetest.Options{})
		paused, resume := make(chan struct{}), make(chan struct{}, 1)
		engine.SetQuirks(enginetest.Quirks{PauseAfter: 100_000, Paused: paused, Resume: resume})
		program, err := exec.LookPath("load-image") // testscript.Main put it on PATH
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // ends a test that would hang
		defer cancel()
		command := func() *exec.Cmd {
			cmd := exec.CommandContext(ctx, program, "-dir", dir, "-json", "-lock-dir", filepath.Join(dir, "locks"), ref)
			cmd.Env = append(os.Environ(), "DOCKER_HOST="+engine.Address())
			return cmd
		}
		cmd := command()
		require.NoError(t, cmd.Start())
		<-paused // a layer is half there
		require.NoError(t, cmd.Process.Signal(signal))
		var exit *exec.ExitError
		require.ErrorAs(t, cmd.Wait(), &exit)
		assert.Equal(t, 130, exit.ExitCode())
		resume <- struct{}{}
		assert.Empty(t, engine.Names())

		engine.SetQuirks(enginetest.Quirks{})
		out, err := command().Output()
		require.NoError(t, err)
		var r result
		require.NoError(t, json.Unmarshal(out, &r))
		assert.Equal(t, "loaded", r.Outcome)
		assert.Len(t, engine.Names(), 1)
		_, err = engine.Files(ref)
		require.NoError(t, err)
	}
}
