package loader

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/enginetest"
)

func TestAdvice(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		engine := enginetest.New(t, o)
		assert.Empty(t, connect(t, engine).Advice(t.Context()), "whether this process finds unpigz does not matter")
		engine.SetQuirks(enginetest.Quirks{DenyInfo: true})
		assert.Empty(t, connect(t, engine).Advice(t.Context()))
		engine.SetQuirks(enginetest.Quirks{OldVersion: true, Driver: "vfs"})
		advice := connect(t, engine).Advice(t.Context())
		if !connect(t, engine).Pulls(t.Context()) { // else it asks for what it lacks
			require.Len(t, advice, 2)
			assert.Contains(t, advice[0], "is sent whole images")
			advice = advice[1:]
		}
		require.Len(t, advice, 1)
		assert.Contains(t, advice[0], "use the storage driver overlay2 (Docker) or overlay (podman)")
	})
}

func TestProduct(t *testing.T) {
	eachKind(t, func(t *testing.T, o enginetest.Options) {
		want := "docker"
		if o.Kind == enginetest.Podman {
			want = "podman"
		}
		assert.Equal(t, want, Product(connect(t, enginetest.New(t, o))))
	})
	assert.Equal(t, "containerd", Product(&containerd{}))
	assert.Empty(t, Product(nil))
}

func TestLacksProgram(t *testing.T) {
	process := t.TempDir()
	assert.False(t, lacksProgram(process, "unpigz"), "the environment cannot be read")
	environ := func(text string) {
		require.NoError(t, os.WriteFile(filepath.Join(process, "environ"), []byte(text), 0o600))
	}
	environ("HOME=/root\x00NOPATH=/bin\x00")
	assert.False(t, lacksProgram(process, "unpigz"), "it has no PATH")
	environ("HOME=/root\x00PATH=/usr/bin:/bin\x00")
	assert.True(t, lacksProgram(process, "unpigz"))
	require.NoError(t, os.MkdirAll(filepath.Join(process, "root", "bin"), 0o700))
	assert.True(t, lacksProgram(process, "unpigz"))
	require.NoError(t, os.Symlink("/nowhere/pigz", filepath.Join(process, "root", "bin", "unpigz")))
	assert.False(t, lacksProgram(process, "unpigz"))
	environ("PATH=/usr/bin\x00")
	assert.True(t, lacksProgram(process, "unpigz"))
}
