package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/testtool"
)

const childVar = "DOCKERCACHE_TEST_CLI"

func TestMain(m *testing.M) {
	switch os.Getenv(childVar) {
	case "":
		os.Exit(m.Run())
	case "obedient":
		Main(func(ctx context.Context, _ []string, stdout, _ io.Writer) int {
			fmt.Fprintln(stdout, "ready")
			<-ctx.Done()
			fmt.Fprintln(stdout, "cleaned up")
			return Failed
		})
	case "stuck": // as in a read from a file server that is gone
		Main(func(_ context.Context, _ []string, stdout, _ io.Writer) int {
			fmt.Fprintln(stdout, "ready")
			select {}
		})
	case "failed":
		Main(func(context.Context, []string, io.Writer, io.Writer) int { return Failed })
	}
}

func child(t *testing.T, kind string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childVar+"="+kind)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return cmd, bufio.NewScanner(out)
}

func TestInterrupted(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		for kind, want := range map[string][]string{"obedient": {"ready", "cleaned up"}, "stuck": {"ready"}} {
			// Without this a child of nohup, or of a shell's background, ignores it.
			signals := make(chan os.Signal, 1)
			signal.Notify(signals, sig)
			defer signal.Stop(signals)
			cmd, lines := child(t, kind)
			require.True(t, lines.Scan())
			said := []string{lines.Text()}
			require.NoError(t, cmd.Process.Signal(sig))
			for lines.Scan() {
				said = append(said, lines.Text())
			}
			var exit *exec.ExitError
			require.ErrorAs(t, cmd.Wait(), &exit)
			assert.Equal(t, Interrupted, exit.ExitCode(), kind)
			assert.Equal(t, want, said, kind)
		}
	}
}

// Ctrl-C ends a program within a second, whatever hangs.
func TestPatience(t *testing.T) {
	assert.Less(t, time.Duration(patience.Load()), time.Second)
}

// nohup means what it says.
func TestIgnoredHangup(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(testtool.Need(t, "nohup"), self)
	cmd.Env = append(os.Environ(), childVar+"=obedient")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan())
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP)) // would be the first to arrive
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	for lines.Scan() {
	}
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	assert.Equal(t, Interrupted, exit.ExitCode())
}

func TestExitCode(t *testing.T) {
	cmd, _ := child(t, "failed")
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	assert.Equal(t, Failed, exit.ExitCode())
}
