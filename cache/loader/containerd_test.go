package loader

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeCtr puts a program in ctr's place that prints and exits as the script says.
func fakeCtr(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ctr"), []byte("#!/bin/sh\n"+script), 0o700))
	t.Setenv("PATH", dir+":/usr/bin:/bin")
}

// fakeSocket returns the address of a socket on which something listens.
func fakeSocket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctr") // short: a socket's path has 108 bytes at most
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", dir+"/containerd.sock")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return "containerd://" + dir + "/containerd.sock"
}

// ctr tries for 10 s to connect to a socket that is not there, so it is not started.
func TestContainerdWithoutASocket(t *testing.T) {
	fakeCtr(t, "echo it was started >&2; exit 1")
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/file", nil, 0o600))
	l, err := net.Listen("unix", dir+"/dead.sock")
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	for path, want := range map[string]string{
		"/none.sock": "no such file or directory: is an engine running, and its address right (DOCKER_HOST, -host)?",
		"/file":      "connection refused: nothing listens there: is the engine running?",
		"/dead.sock": "connection refused: nothing listens there: is the engine running?",
	} {
		_, err := openContainerd(t.Context(), "containerd://"+dir+path)
		require.ErrorIs(t, err, ErrUnreachable)
		require.ErrorContains(t, err, "engine at containerd://"+dir+path)
		require.ErrorContains(t, err, want)
	}
}

func TestContainerdErrors(t *testing.T) {
	_, err := openContainerd(t.Context(), "unix:///x")
	require.ErrorIs(t, err, ErrInvalidHost)
	address := fakeSocket(t)
	fakeCtr(t, `echo "ctr: failed to dial: connection refused" >&2; exit 1`)
	_, err = openContainerd(t.Context(), address)
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorContains(t, err, "ctr version: failed to dial: connection refused")
	t.Setenv("PATH", t.TempDir())
	_, err = openContainerd(t.Context(), address)
	require.ErrorIs(t, err, ErrInvalidHost)
	require.ErrorContains(t, err, "the program ctr, which comes with containerd, is needed")
}

// From version 2 on ctr has containerd import and pull, unless it is to do so itself.
func TestContainerdLocal(t *testing.T) {
	for client, local := range map[string]string{"1.6.20~ds1": "", "v1.7.24": "", "v2.4.2": " --local", "2.0.0+unknown": " --local", "10.1": " --local", "unknown": ""} {
		address, seen := fakeSocket(t), filepath.Join(t.TempDir(), "seen")
		fakeCtr(t, "[ \"$3\" != version ] || printf 'Client:\\n  Version:  "+client+"\\n\\nServer:\\n  Version:  1.2.3\\n'\nshift 2; echo \"$*\" >>"+seen)
		c, err := openContainerd(t.Context(), address)
		require.NoError(t, err)
		assert.Equal(t, "1.2.3", c.version)
		require.NoError(t, c.Load(t.Context(), strings.NewReader(""), 0))
		require.NoError(t, c.Pull(t.Context(), "127.0.0.1:5/a:b"))
		got, err := os.ReadFile(seen)
		require.NoError(t, err)
		assert.Equal(t, "version\nimages import"+local+" -\nimages pull --plain-http"+local+" 127.0.0.1:5/a:b\n", string(got), client)
	}
}

// What ctr prints of an image, and what that means.
func TestContainerdFind(t *testing.T) {
	const digest = "sha256:d960f1b545b9c3f34fe44c172f5ab93c79c835937a27bed07a68c8ee71161382"
	const head = "REF TYPE DIGEST STATUS SIZE UNPACKED"
	for name, c := range map[string]struct {
		lines    string
		manifest string // as "ctr content get" prints it
		found    bool
		state    State
	}{
		"none":         {head, "", false, Usable},
		"another":      {"registry.test/b:1 type " + digest + " complete (6/6) 1.0 MiB/1.0 MiB true", "", false, Usable},
		"whole":        {"registry.test/a:1 type " + digest + " complete (6/6) 1.0 MiB/1.0 MiB true", "", true, Usable},
		"not unpacked": {"registry.test/a:1 type " + digest + " complete (6/6) 1.0 MiB/1.0 MiB false", `{"config":{"digest":"` + digest + `"},"layers":[{"digest":"` + digest + `"}]}`, true, Incomplete},
		"incomplete":   {"registry.test/a:1 type " + digest + " incomplete (5/6) 1.0 MiB/2.0 MiB true", "", true, Incomplete},
		// Of an image without layers there is nothing to unpack.
		"no layers":                {"registry.test/a:1 type " + digest + " complete (2/2) 1.0 KiB/1.0 KiB false", `{"config":{"digest":"` + digest + `"},"layers":[]}`, true, Usable},
		"no list of layers":        {"registry.test/a:1 type " + digest + " complete (2/2) 1.0 KiB/1.0 KiB false", `{"config":{"digest":"` + digest + `"}}`, true, Usable},
		"no layers and no config":  {"registry.test/a:1 type " + digest + " incomplete (1/2) 1.0 KiB/1.0 KiB false", `{"config":{"digest":"` + digest + `"}}`, true, Incomplete},
		"an index, not unpacked":   {"registry.test/a:1 type " + digest + " complete (2/2) 1.0 KiB/1.0 KiB false", `{"manifests":[{"digest":"` + digest + `"}]}`, true, Incomplete},
		"an index without content": {"registry.test/a:1 type " + digest + " complete (2/2) 1.0 KiB/1.0 KiB false", "nonsense", true, Incomplete},
	} {
		fakeCtr(t, "[ \"$3\" != content ] || exec echo '"+c.manifest+"'\ncat <<'EOF'\n"+c.lines+"\nEOF\n")
		containerd, err := openContainerd(t.Context(), fakeSocket(t))
		require.NoError(t, err)
		id, state, err := containerd.Find(t.Context(), "registry.test/a:1")
		require.NoError(t, err)
		assert.Equal(t, c.state, state, name)
		if c.found {
			assert.Equal(t, digest, id.String(), name)
		} else {
			assert.Zero(t, id, name)
		}
	}
	fakeCtr(t, `[ "$3" = version ] || echo "registry.test/a:1 type nonsense complete true"`)
	containerd, err := openContainerd(t.Context(), fakeSocket(t))
	require.NoError(t, err)
	_, _, err = containerd.Find(t.Context(), "registry.test/a:1")
	require.ErrorIs(t, err, ErrEngine)
}

// ctr removes a reference only when no container has the image by any of its names, and with
// the last one that which Kubernetes' plugin has made.
func TestContainerdRemove(t *testing.T) {
	const images = `echo "REF TYPE DIGEST
r/a:1 type sha256:aa x
r/a:2 type sha256:aa x
sha256:11 type sha256:aa x
r/b:1 type sha256:bb x
sha256:22 type sha256:bb x"`
	for name, c := range map[string]struct {
		reference, containers string
		removed               string // the arguments of ctr images rm
		inUse                 bool
	}{
		"the last reference":    {"r/b:1", "c1 r/a:1 runc", "--sync r/b:1 sha256:22", false},
		"not the last":          {"r/a:1", "", "--sync r/a:1", false},
		"used":                  {"r/b:1", "c1 r/a:1 runc\nc2 r/b:1 runc", "", true},
		"used by another name":  {"r/a:1", "c1 r/a:2 runc", "", true},
		"used by the digest":    {"r/b:1", "c1 sha256:22 runc", "", true},
		"none":                  {"r/c:1", "", "", false},
		"a container, no image": {"r/c:1", "c1 r/c:1 runc", "", false},
		"an image unknown":      {"r/b:1", "c1 r/c:1 runc", "--sync r/b:1 sha256:22", false},
	} {
		removed := filepath.Join(t.TempDir(), "removed")
		fakeCtr(t, `shift 2
case "$1 $2" in
"images ls") `+images+` ;;
"containers ls") echo "CONTAINER IMAGE RUNTIME
`+c.containers+`" ;;
"images rm") shift 2; echo -n "$*" >`+removed+` ;;
esac`)
		containerd, err := openContainerd(t.Context(), fakeSocket(t))
		require.NoError(t, err)
		err = containerd.Remove(t.Context(), c.reference)
		if c.inUse {
			require.ErrorIs(t, err, ErrInUse, name)
		} else {
			require.NoError(t, err, name)
		}
		got, _ := os.ReadFile(removed)
		assert.Equal(t, c.removed, string(got), name)
	}
}

// Where programs judge pulls, an archive is sent.
func TestContainerdVerifiers(t *testing.T) {
	fakeCtr(t, "exit 0")
	containerd, err := openContainerd(t.Context(), fakeSocket(t))
	require.NoError(t, err)
	assert.Equal(t, verifierDir, containerd.verifiers)
	containerd.verifiers = filepath.Join(t.TempDir(), "bin")
	pulls := runtime.GOOS == "linux"
	assert.Equal(t, pulls, containerd.Pulls(t.Context()))
	require.NoError(t, os.Mkdir(containerd.verifiers, 0o700))
	assert.Equal(t, pulls, containerd.Pulls(t.Context()))
	require.NoError(t, os.WriteFile(filepath.Join(containerd.verifiers, "policy"), nil, 0o700))
	assert.False(t, containerd.Pulls(t.Context()))
}
