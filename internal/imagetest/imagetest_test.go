package imagetest

import (
	"bytes"
	"compress/gzip"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The bytes are those of compress/gzip: digests of layers are in files that tests read.
func TestStored(t *testing.T) {
	content := make([]byte, 3<<16)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content) // never fails
	for _, size := range []int{1, 512, 1<<16 - 2, 1<<16 - 1, 1 << 16, 2 * (1<<16 - 1), 3 << 16} {
		var want bytes.Buffer
		z, err := gzip.NewWriterLevel(&want, gzip.NoCompression)
		require.NoError(t, err)
		_, err = z.Write(content[:size])
		require.NoError(t, err)
		require.NoError(t, z.Close())
		assert.True(t, bytes.Equal(want.Bytes(), stored(content[:size])), size)
	}
}
