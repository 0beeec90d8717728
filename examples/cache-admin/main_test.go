package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"cache-admin": main})
}

// The scripts run the program in a directory "dir" with a_main.tar and
// a_release.tar, of one image, and b_main.tar, from the registry $OWN.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			own, err := registrytest.Start()
			if err != nil {
				return err
			}
			env.Defer(own.Close)
			env.Values["own"] = own
			env.Setenv("OWN", own.Host())
			env.Setenv("HOME", env.WorkDir)
			dir, err := cache.OpenDir(env.WorkDir+"/dir", &cache.DirOptions{DirMode: 0o755})
			if err != nil {
				return err
			}
			for _, tag := range []string{"a", "b"} {
				image, err := random.Image(50_000, 3)
				if err != nil {
					return err
				}
				ref, err := own.Push("team/image:"+tag+"-1", image)
				if err != nil {
					return err
				}
				remote, err := registry.New(nil).Image(t.Context(), registry.DefaultPlatform(), ref)
				if err != nil {
					return err
				}
				local, err := cache.NewImage(ref, remote.Manifest(), remote.Config())
				if err != nil {
					return err
				}
				for i, name := range map[string][]string{"a": {"a_main.tar", "a_release.tar"}, "b": {"b_main.tar"}}[tag] {
					p := cache.Provenance{Source: ref, Branch: "main", Run: cache.Run{ID: int64(7 + i), Attempt: 1}}
					if _, err := dir.Put(t.Context(), name, local, remote, &cache.PutOptions{Provenance: p}); err != nil {
						return err
					}
				}
			}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// damage FILE LAYER...: a byte of each of these layers is wrong.
			"damage": func(ts *testscript.TestScript, _ bool, args []string) {
				path := ts.MkAbs(args[0])
				tarball, err := cache.ReadTarball(path)
				ts.Check(err)
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				ts.Check(err)
				defer f.Close()
				layer := 0
				for _, s := range tarball.Layout.Segments() {
					if !s.IsBlob() {
						continue
					}
					for _, a := range args[1:] {
						if n, _ := strconv.Atoi(a); n == layer {
							var b [1]byte
							_, err = f.ReadAt(b[:], s.Offset+100)
							ts.Check(err)
							_, err = f.WriteAt([]byte{b[0] ^ 1}, s.Offset+100)
							ts.Check(err)
						}
					}
					layer++
				}
			},
			// age FILE DURATION: it was written so long ago.
			"age": func(ts *testscript.TestScript, _ bool, args []string) {
				d, err := time.ParseDuration(args[1])
				ts.Check(err)
				at := time.Now().Add(-d)
				ts.Check(os.Chtimes(ts.MkAbs(args[0]), at, at))
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
			// stop: the registry is gone.
			"stop": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Value("own").(*registrytest.Server).Close()
			},
			// holds DIR FILE...: these files and no other, dot files included.
			"holds": func(ts *testscript.TestScript, _ bool, args []string) {
				entries, err := os.ReadDir(ts.MkAbs(args[0]))
				ts.Check(err)
				var have []string
				for _, e := range entries {
					have = append(have, e.Name())
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
	for want, record := range map[string]any{
		`{"name":"","digest":"","reference":"","source":"","branch":"","run":0,"run_attempt":0,"bytes":0,"bytes_allocated":0,"bytes_shared":0,"last_used":"","error":""}`: listed{},
		`{"name":"","digest":"","outcome":"","damaged":[],"bytes":0,"bytes_downloaded":0,"error":""}`:                                                                     verified{Damaged: []string{}},
		`{"name":"","kind":"","action":"","dry_run":false,"why":"","kept":"","bytes":0,"last_used":""}`:                                                                   pruned{},
		`{"file":"","digest":"","reference":"","source":"","branch":"","run":0,"run_attempt":0,"platform":"","created":"","config":"","bytes":0,"layers":[{"digest":"","media_type":"","bytes":0,"offset":0}]}`: described{
			Layers: []describedLayer{{}}},
	} {
		raw, err := json.Marshal(record)
		require.NoError(t, err)
		assert.Equal(t, want, string(raw))
	}
}

func TestAge(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{"30d": 30 * day, "1d12h": 36 * time.Hour, "36h": 36 * time.Hour, "90m": 90 * time.Minute} {
		var a age
		require.NoError(t, a.Set(text), text)
		assert.Equal(t, want, a.duration(), text)
	}
	for _, text := range []string{"", "d", "0", "0d", "-1d", "-5h", "1d-5h", "30", "1dd", "999999999d", "1.5d"} {
		require.Error(t, new(age).Set(text), text)
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]size{"500GB": 500e9, "500GiB": 500 << 30, "1": 1, "1.5k": 1500} {
		var s size
		require.NoError(t, s.Set(text), text)
		assert.Equal(t, want, s, text)
	}
	for _, text := range []string{"", "0", "-1", "many", "16EiB", "1XB"} {
		require.Error(t, new(size).Set(text), text)
	}
}

func TestPrintable(t *testing.T) {
	assert.Equal(t, "a_main.tar", printable("a_main.tar"))
	assert.Equal(t, `"a\n\x1b[2J.tar"`, printable("a\n\x1b[2J.tar"))
}
