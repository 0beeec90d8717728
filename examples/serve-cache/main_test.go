package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/scripttest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"serve-cache": main})
}

// The scripts run the program with a directory dir that has the tarballs of
// registry.test/ci/image:jammy-1 and :noble-1.
func TestScripts(t *testing.T) {
	running := func(ts *testscript.TestScript) *process { return *ts.Value("program").(**process) }
	scripttest.Run(t, func(env *testscript.Env) error {
		env.Values["program"] = new(*process)
		scripttest.SetUpBucket(t, env)
		return errors.Join(
			scripttest.Stock(filepath.Join(env.WorkDir, "dir", "jammy_main.tar"), "registry.test/ci/image:jammy-1", 5000, "a"),
			scripttest.Stock(filepath.Join(env.WorkDir, "dir", "noble_main.tar"), "registry.test/ci/image:noble-1", 5000, "b"))
	}, scripttest.Commands{
		// start ARG...: serve-cache runs from now on, at $ADDRESS; its first line is
		// in the file line.
		"start": func(ts *testscript.TestScript, _ bool, args []string) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // ends one that no test stops
			ts.Defer(cancel)
			env := os.Environ()
			for _, name := range []string{"HOME", "GORACE", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
				env = append(env, name+"="+ts.Getenv(name))
			}
			p, err := start(ctx, ts.MkAbs("."), env, args...)
			ts.Check(err)
			ts.Defer(func() { _ = p.cmd.Process.Kill() }) // has ended, in most scripts
			*ts.Value("program").(**process) = p
			ts.Setenv("ADDRESS", p.address)
			ts.Check(os.WriteFile(ts.MkAbs("line"), []byte(p.line), 0o644))
		},
		// signal SIGNAL CODE: it ends with this exit code; what it had to say is in
		// the file errors.
		"signal": func(ts *testscript.TestScript, _ bool, args []string) {
			signal := map[string]os.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM}[args[0]]
			code, err := running(ts).stop(signal)
			ts.Check(err)
			if fmt.Sprint(code) != args[1] {
				ts.Fatalf("exit code %d, want %s", code, args[1])
			}
			ts.Check(os.WriteFile(ts.MkAbs("errors"), running(ts).stderr.Bytes(), 0o644))
		},
		// [!] pull REF: a client pulls an image, and verifies all of it.
		"pull": func(ts *testscript.TestScript, neg bool, args []string) {
			ref, err := name.ParseReference(args[0])
			ts.Check(err)
			img, err := remote.Image(ref, remote.WithContext(t.Context()))
			if err == nil {
				err = validate.Image(img)
			}
			if neg != (err != nil) {
				ts.Fatalf("pull %s: %v", ref, err)
			}
		},
	})
}

// A signal in the middle of a pull ends it: what the client has is not complete.
func TestSignalInTheMiddle(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	require.NoError(t, scripttest.Stock(filepath.Join(dir, "image_main.tar"), "registry.test/ci/image:v1", 24<<20, "a")) // more than sockets hold
	for _, signal := range scripttest.Signals() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // ends a test that would hang
		defer cancel()
		p, err := start(ctx, dir, os.Environ(), "-dir", dir, "-addr", "127.0.0.1:0")
		require.NoError(t, err)
		stocked, err := tarball.Open(filepath.Join(dir, "image_main.tar"))
		require.NoError(t, err)
		defer stocked.Close()
		got, err := http.Get("http://" + p.address + "/v2/registry.test/ci/image/blobs/" + stocked.Image.Layers()[0].Digest.String())
		require.NoError(t, err)
		defer got.Body.Close()
		_, err = io.CopyN(io.Discard, got.Body, 1000)
		require.NoError(t, err)
		code, err := p.stop(signal)
		require.NoError(t, err)
		assert.Equal(t, cli.Interrupted, code)
		assert.Empty(t, p.stderr.String())
		_, err = io.Copy(io.Discard, got.Body)
		require.Error(t, err)
	}
}

// It ends by itself when its context does, before a caller runs out of patience.
func TestEndsWithItsContext(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	require.NoError(t, scripttest.Stock(filepath.Join(dir, "image_main.tar"), "registry.test/ci/image:v1", 24<<20, "a"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	code := make(chan int, 1)
	var stderr bytes.Buffer
	go func() { code <- program.Run(ctx, []string{"-dir", dir, "-addr", "127.0.0.1:0"}, w, &stderr) }()
	line, err := bufio.NewReader(r).ReadString('\n')
	require.NoError(t, err)
	_, url, ok := strings.Cut(strings.TrimSpace(line), " at ")
	require.True(t, ok, line)
	stocked, err := tarball.Open(filepath.Join(dir, "image_main.tar"))
	require.NoError(t, err)
	defer stocked.Close()
	got, err := http.Get(url + "/v2/registry.test/ci/image/blobs/" + stocked.Image.Layers()[0].Digest.String())
	require.NoError(t, err)
	defer got.Body.Close()
	cancel() // while the layer is being sent
	select {
	case c := <-code:
		assert.Equal(t, cli.Interrupted, c)
	case <-time.After(time.Minute):
		t.Fatal("it goes on")
	}
	_, err = io.Copy(io.Discard, got.Body)
	require.Error(t, err)
}

// When the address cannot be printed, nothing is served.
func TestOutputThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	r, w := io.Pipe()
	require.NoError(t, r.CloseWithError(errors.New("no reader")))
	var stderr bytes.Buffer
	assert.Equal(t, cli.Failed, program.Run(t.Context(), []string{"-dir", dir, "-addr", "127.0.0.1:0"}, w, &stderr))
	assert.Equal(t, "serve-cache: print the results: no reader\n", stderr.String())
}
