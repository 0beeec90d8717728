package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/examples/internal/report"
	"github.com/dockercache/dockercache/examples/internal/scripttest"
	"github.com/dockercache/dockercache/internal/enginetest"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"load-image": main})
}

// The scripts run the program against engines, see [scripttest.RunEngines].
func TestScripts(t *testing.T) {
	engine := scripttest.Engine
	scripttest.RunEngines(t, nil, scripttest.Commands{
		// digest FILE: $DIGEST is that of the manifest in a tarball, $HEX its digits.
		"digest": func(ts *testscript.TestScript, _ bool, args []string) {
			file, err := tarball.Open(ts.MkAbs(args[0]))
			ts.Check(err)
			defer file.Close()
			ts.Setenv("DIGEST", file.Image.Digest().String())
			ts.Setenv("HEX", file.Image.Digest().Hex)
		},
		"quirks": scripttest.Quirks[*enginetest.Engine](enginetest.Quirks{}),
		// named REF...: these references, and no other, name images that can be
		// used, and nothing is left of the verification.
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
		// saved FILE REF LAYER...: writes the file as docker save does.
		"saved": func(ts *testscript.TestScript, _ bool, args []string) {
			archive, err := tarballtest.Saved(args[1:2], 5000, args[2:]...)
			ts.Check(err)
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), archive, 0o600))
		},
		// truncate FILE: cuts off its last third.
		"truncate": func(ts *testscript.TestScript, _ bool, args []string) {
			info, err := os.Stat(ts.MkAbs(args[0]))
			ts.Check(err)
			ts.Check(os.Truncate(ts.MkAbs(args[0]), info.Size()*2/3))
		},
		// flip FILE: changes a bit of its first layer.
		"flip": func(ts *testscript.TestScript, _ bool, args []string) {
			content, err := os.ReadFile(ts.MkAbs(args[0]))
			ts.Check(err)
			content[3000] ^= 1
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), content, 0o600))
		},
		// loads N: so many archives were sent, or images pulled, since the last time.
		"loads": func(ts *testscript.TestScript, _ bool, args []string) {
			if n := len(engine(ts).Loads()) + engine(ts).Pulls(); strconv.Itoa(n) != args[0] {
				ts.Fatalf("%d loads, want %s", n, args[0])
			}
			engine(ts).Forget()
		},
	})
}

// A signal in the middle of a load: exit code 130, the engine has nothing of it,
// and the next run is right.
func TestSignals(t *testing.T) {
	for _, signal := range scripttest.Signals() {
		const ref = "registry.test/ci/image:jammy-1"
		dir := t.TempDir()
		require.NoError(t, scripttest.Stock(filepath.Join(dir, "jammy_main.tar"), ref, 6<<20, "a", "b"))
		engine := enginetest.New(t, enginetest.Options{})
		paused, resume := make(chan struct{}), make(chan struct{}, 1)
		engine.SetQuirks(enginetest.Quirks{PauseAfter: 100_000, Paused: paused, Resume: resume})
		command := func() *exec.Cmd {
			cmd := scripttest.Command(t, "load-image", "-dir", dir, "-json", "-lock-dir", filepath.Join(dir, "locks"), ref)
			cmd.Env = append(cmd.Env, "DOCKER_HOST="+engine.Address())
			return cmd
		}
		scripttest.Interrupt(t, command(), signal, paused) // a layer is half there
		resume <- struct{}{}
		assert.Empty(t, engine.Names())

		engine.SetQuirks(enginetest.Quirks{})
		out, err := command().Output()
		require.NoError(t, err)
		var r report.Loaded
		require.NoError(t, json.Unmarshal(out, &r))
		assert.Equal(t, "loaded", r.Outcome)
		assert.Len(t, engine.Names(), 1)
		_, err = engine.Files(ref)
		require.NoError(t, err)
	}
}
