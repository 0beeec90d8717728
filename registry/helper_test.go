//go:build unix

package registry

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// helper installs a credential helper, a shell script.
func helper(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
}

func TestHelpers(t *testing.T) {
	for script, c := range map[string]struct {
		want    authn.AuthConfig
		failure string
	}{
		`test "$1" = get && test "$(cat)" = example.com && printf '%s' '{"ServerURL":"x","Username":"user","Secret":"pass\n"}'`: {authn.AuthConfig{Username: "user", Password: "pass"}, ""},
		`echo '{"Username":"<token>","Secret":"token"}'`:                                                                        {authn.AuthConfig{IdentityToken: "token"}, ""},
		`echo '{"Username":"user","Secret":""}'`:                                                                                {},
		`echo "credentials not found in native keychain"; exit 1`:                                                               {},
		`echo '{"Secret":"TOP-SECRET'`:                                                                                          {failure: "docker-credential-test did not print the expected JSON"},
		`echo '{"Secret":"TOP-SECRET"}'; exit 3`:                                                                                {failure: "docker-credential-test failed: exit status 3"},
		`echo TOP-SECRET >&2; exit 1`:                                                                                           {failure: "docker-credential-test failed: exit status 1"},
		`head -c 3000000 /dev/zero; echo TOP-SECRET`:                                                                            {failure: "did not print the expected JSON"},
		`sleep 1000 & echo '{"Username":"user","Secret":"pass"}'; echo $! >$0.sleep`:                                            {authn.AuthConfig{Username: "user", Password: "pass"}, ""},
	} {
		helper(t, script)
		got, err := (&helpers{}).get(t.Context(), "test", "example.com")
		if c.failure != "" {
			require.ErrorContains(t, err, c.failure, script)
			assert.NotContains(t, err.Error(), "TOP-SECRET")
			continue
		}
		require.NoError(t, err, script)
		assert.Equal(t, c.want, got, script)
		if strings.Contains(script, "sleep") { // what it leaves behind is its own affair
			dir, _, _ := strings.Cut(os.Getenv("PATH"), ":")
			end(t, filepath.Join(dir, "docker-credential-test.sleep"))
		}
	}
}

// A store that is for another system is as one that is not installed.
func TestStoreThatDoesNotRun(t *testing.T) {
	helper(t, "")
	program, _, _ := strings.Cut(os.Getenv("PATH"), ":")
	require.NoError(t, os.WriteFile(filepath.Join(program, "docker-credential-test"), []byte("\x7fELF, but not of this system"), 0o755))
	for content, fails := range map[string]bool{
		`{"credsStore":"test"}`:                                    false,
		`{"credsStore":"test","auths":{"other.example.com":{}}}`:   false,
		`{"credsStore":"test","auths":{"host.example.com":{}}}`:    true,
		`{"credHelpers":{"host.example.com":"test"}}`:              true,
		`{"credsStore":"test","credHelpers":{"other.com":"none"}}`: false,
	} {
		file := filepath.Join(t.TempDir(), "config.json")
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		repo, err := name.NewRepository("host.example.com/image")
		require.NoError(t, err)
		auth, err := (&authFile{files: func() []string { return []string{file} }}).Resolve(repo)
		if fails {
			require.ErrorContains(t, err, "the credential helper docker-credential-test does not run: ", content)
			continue
		}
		require.NoError(t, err, content)
		assert.Equal(t, authn.Anonymous, auth, content)
	}
}

// end ends the process whose ID is in a file.
func end(t *testing.T, file string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	id, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	require.NoError(t, err)
	_ = syscall.Kill(id, syscall.SIGKILL)
}

// A helper that hangs is ended at the limit, or with the context, with what it has
// started; the error has its name.
func TestHelperThatHangs(t *testing.T) {
	for _, cancelled := range []bool{false, true} {
		dir := t.TempDir()
		fifo := filepath.Join(dir, "fifo")
		require.NoError(t, syscall.Mkfifo(fifo, 0o600))
		// Both hold the pipe open until they are gone.
		helper(t, "exec 3>'"+fifo+"'; echo started >&3; sleep 1000 & sleep 1000")
		why := errors.New("interrupted")
		ctx, cancel := context.WithCancelCause(t.Context())
		limit := make(chan time.Time)
		h := &helpers{after: func(d time.Duration) <-chan time.Time { assert.Equal(t, helperLimit, d); return limit }}
		result := make(chan error, 1)
		go func() {
			_, err := h.get(ctx, "test", "example.com")
			result <- err
		}()
		pipe, err := os.Open(fifo)
		require.NoError(t, err)
		defer pipe.Close()
		buffer := make([]byte, 100)
		n, err := pipe.Read(buffer)
		require.NoError(t, err)
		require.Equal(t, "started\n", string(buffer[:n]))
		if cancelled {
			cancel(why)
			require.ErrorIs(t, <-result, why)
		} else {
			close(limit)
			err := <-result
			require.ErrorContains(t, err, "the credential helper docker-credential-test did not answer within 1m0s and was ended")
		}
		_, err = pipe.Read(buffer)
		require.Error(t, err, "both are gone")
		cancel(nil)
	}
}
