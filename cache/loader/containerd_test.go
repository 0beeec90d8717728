package loader

import (
	"os"
	"path/filepath"
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

func TestContainerdErrors(t *testing.T) {
	_, err := openContainerd(t.Context(), "unix:///x")
	require.ErrorIs(t, err, ErrInvalidHost)
	fakeCtr(t, `echo "ctr: failed to dial: connection refused" >&2; exit 1`)
	_, err = openContainerd(t.Context(), "containerd:///x")
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorContains(t, err, "ctr version: failed to dial: connection refused")
	t.Setenv("PATH", t.TempDir())
	_, err = openContainerd(t.Context(), "containerd:///x")
	require.ErrorIs(t, err, ErrInvalidHost)
	require.ErrorContains(t, err, "the program ctr, which comes with containerd, is needed")
}

// What ctr prints of an image, and what that means.
func TestContainerdFind(t *testing.T) {
	const digest = "sha256:d960f1b545b9c3f34fe44c172f5ab93c79c835937a27bed07a68c8ee71161382"
	const head = "REF TYPE DIGEST STATUS SIZE UNPACKED"
	for name, c := range map[string]struct {
		lines string
		found bool
		state State
	}{
		"none":       {head, false, Usable},
		"another":    {"registry.test/b:1 type " + digest + " complete (6/6) 1.0 MiB/1.0 MiB true", false, Usable},
		"whole":      {"registry.test/a:1 type " + digest + " complete (6/6) 1.0 MiB/1.0 MiB true", true, Usable},
		"unpacked":   {"registry.test/a:1 type " + digest + " complete (6/6) 1.0 MiB/1.0 MiB false", true, Incomplete},
		"incomplete": {"registry.test/a:1 type " + digest + " incomplete (5/6) 1.0 MiB/2.0 MiB true", true, Incomplete},
	} {
		fakeCtr(t, "cat <<'EOF'\n"+c.lines+"\nEOF\n")
		containerd, err := openContainerd(t.Context(), "containerd:///x")
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
	containerd, err := openContainerd(t.Context(), "containerd:///x")
	require.NoError(t, err)
	_, _, err = containerd.Find(t.Context(), "registry.test/a:1")
	require.ErrorIs(t, err, ErrEngine)
}
