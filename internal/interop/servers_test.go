package interop

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/testtool"
)

// owner is what a server ends with: a test, or a daemon.
type owner interface{ Cleanup(end func()) }

// start starts a server and returns the first line of its log that contains
// ready. The server ends with its owner.
func start(t *testing.T, owner owner, ready string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(testtool.Need(t, name), args...)
	// Its own process group: a terminal's Ctrl-C is for the test, which then
	// ends the server in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := cmd.StderrPipe()
	require.NoError(t, err)
	cmd.Stdout = cmd.Stderr
	require.NoError(t, cmd.Start())
	if d, ok := owner.(*daemon); ok {
		d.process = cmd.Process
	}
	owner.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	var seen bytes.Buffer
	for lines.Scan() {
		if strings.Contains(lines.Text(), ready) {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return lines.Text()
		}
		seen.WriteString(lines.Text() + "\n")
	}
	t.Fatalf("%s ended before it said %q:\n%s", name, ready, seen.String())
	return ""
}

// run runs a program to its end and returns its standard output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := try(t, name, args...)
	require.NoError(t, err)
	return out
}

// try is run for a program that may fail.
func try(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(testtool.Need(t, name), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), err
}

// startRegistry starts Debian's docker-registry, with more lines of its
// configuration if any, and returns HOST:PORT.
func startRegistry(t *testing.T, more ...string) string {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: %s}}
http: {addr: "127.0.0.1:0"}
%s
`, dir, strings.Join(more, "\n")), 0o600))
	line := start(t, t, "listening on", "docker-registry", "serve", config)
	_, rest, _ := strings.Cut(line, "listening on ")
	host, _, _ := strings.Cut(rest, `"`)
	return strings.TrimSpace(host)
}

// shortDir returns a directory whose name leaves room for a socket's: 108 bytes
// in all.
func shortDir(t *testing.T, owner owner) string {
	t.Helper()
	d, isDaemon := owner.(*daemon)
	if isDaemon && d.dir != "" {
		return d.dir
	}
	dir, err := os.MkdirTemp("", "dc")
	require.NoError(t, err)
	owner.Cleanup(func() { _ = os.RemoveAll(dir) })
	if isDaemon {
		d.dir = dir
	}
	if isDaemon && d.disk != "" {
		run(t, "mount", "-t", "tmpfs", "-o", d.disk, "tmpfs", dir)
		owner.Cleanup(func() { _ = exec.Command("umount", "-R", dir).Run() })
	}
	return dir
}

// examples are the programs that were built, by name.
var examples struct {
	sync.Mutex
	dir   string
	built map[string]string
}

// buildExample builds an example, once, and returns the program's path.
func buildExample(t *testing.T, name string) string {
	t.Helper()
	examples.Lock()
	defer examples.Unlock()
	if examples.built[name] == "" {
		program := filepath.Join(examples.dir, name)
		cmd := exec.Command("go", "build", "-o", program, "../../examples/"+name)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		examples.built[name] = program
	}
	return examples.built[name]
}

func TestMain(m *testing.M) {
	if os.Getenv(loadsForever) != "" {
		loadForEver()
		return
	}
	var err error
	if examples.dir, err = os.MkdirTemp("", "interop"); err != nil {
		panic(err)
	}
	examples.built = map[string]string{}
	code := m.Run()
	endDaemons()
	_ = os.RemoveAll(examples.dir)
	os.Exit(code)
}
