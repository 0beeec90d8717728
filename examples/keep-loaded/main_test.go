package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/scripttest"
	"github.com/dockercache/dockercache/internal/enginetest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"keep-loaded": main})
}

// The scripts run the program against engines, see [scripttest.RunEngines].
func TestScripts(t *testing.T) {
	engine := scripttest.Engine
	scripttest.RunEngines(t, func(env *testscript.Env) { env.Values["release"] = new(func()) }, scripttest.Commands{
		// named REF...: the engine has these references and no other.
		"named": func(ts *testscript.TestScript, _ bool, args []string) {
			var have []string
			for name := range engine(ts).Names() {
				have = append(have, name)
			}
			slices.Sort(have)
			if !slices.Equal(have, args) {
				ts.Fatalf("the engine has %q, want %q", have, args)
			}
		},
		// use REF: a container has the image, until release.
		"use": func(ts *testscript.TestScript, _ bool, args []string) {
			release, err := engine(ts).Use(args[0])
			ts.Check(err)
			*ts.Value("release").(*func()) = release
		},
		"release": func(ts *testscript.TestScript, _ bool, _ []string) { (*ts.Value("release").(*func()))() },
	})
}

// It runs until its context ends: what is published meanwhile is loaded, and its health and
// its metrics are served.
func TestWatches(t *testing.T) {
	engine := enginetest.New(t, enginetest.Options{})
	dir := t.TempDir()
	loaded := make(chan struct{}, 16)
	engine.SetQuirks(enginetest.Quirks{Before: func(r enginetest.Request) {
		if r.Path == "/images/load" {
			loaded <- struct{}{}
		}
	}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	code := make(chan int, 1)
	go func() {
		defer w.Close()
		code <- program.Run(ctx, []string{"-dir", dir, "-host", engine.Address(), "-addr", "127.0.0.1:0", "-interval", "10ms",
			"-state", filepath.Join(t.TempDir(), "new", "state.json"), "-lock-dir", filepath.Join(t.TempDir(), "locks")}, w, io.Discard)
	}()
	lines := bufio.NewScanner(r)
	require.True(t, lines.Scan())
	url := regexp.MustCompile(`^watching .*, health at (http://127\.0\.0\.1:[0-9]+)/healthz$`).FindStringSubmatch(lines.Text())
	require.NotNil(t, url, lines.Text())
	require.NoError(t, scripttest.Stock(filepath.Join(dir, "jammy_main.tar"), "registry.test/ci/image:jammy-1", 5000, "a"))
	<-loaded
	require.True(t, lines.Scan())
	assert.Regexp(t, "^loaded .*jammy_main.tar", lines.Text())
	get := func(path string) string {
		got, err := http.Get(url[1] + path)
		require.NoError(t, err)
		defer got.Body.Close()
		body, err := io.ReadAll(got.Body)
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, got.StatusCode)
		return string(body)
	}
	assert.Regexp(t, "^ok\n", get("/healthz"))
	assert.Contains(t, get("/metrics"), `dockercache_keep_loaded_loads_total{image="jammy_main.tar",outcome="loaded"} 1`)
	cancel()
	assert.Equal(t, cli.Interrupted, <-code)
	assert.False(t, lines.Scan())
}

func TestBusy(t *testing.T) {
	self, err := os.ReadFile("/proc/self/comm")
	if err == nil {
		name := strings.TrimSpace(string(self))
		assert.Equal(t, "the process "+name+" runs", busy([]string{name}, time.Hour)())
	}
	file := filepath.Join(t.TempDir(), "job")
	b := busy([]string{"no-such-program", file}, time.Hour)
	assert.Empty(t, b())
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	assert.Equal(t, file+" exists", b())
	require.NoError(t, os.Chtimes(file, time.Now(), time.Now().Add(-2*time.Hour)))
	assert.Empty(t, b())
}

// A state is that of one directory and engine.
func TestStateFile(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/keep-loaded")
	files := map[string]bool{}
	for _, dir := range []string{"a", "b", "s3://bucket/a"} {
		for _, address := range []string{"unix:///a", "unix:///b"} {
			o := options{dir: dir}
			o.at.Host.Address = address
			file, err := o.stateFile()
			require.NoError(t, err)
			assert.Equal(t, "/var/lib/keep-loaded", filepath.Dir(file))
			files[file] = true
		}
	}
	assert.Len(t, files, 6)
	t.Setenv("STATE_DIRECTORY", "")
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("HOME", "/home/runner")
	file, err := new(options).stateFile()
	require.NoError(t, err)
	assert.Equal(t, "/home/runner/.local/state", filepath.Dir(file))
}
