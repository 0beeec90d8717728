package loader

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
)

func TestSource(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 100)
	var told []cache.Progress
	s := &source{r: iotest.HalfReader(bytes.NewReader(content)), total: 1000, tell: func(p cache.Progress) { told = append(told, p) }}
	got, err := io.ReadAll(s)
	require.NoError(t, err)
	assert.Equal(t, content, got)
	done, err := s.end()
	require.NoError(t, err)
	assert.EqualValues(t, 1000, done)
	assert.Equal(t, cache.Progress{Done: 1000, Total: 1000}, told[len(told)-1])

	// Its own failure stays apart from the engine's.
	broken := errors.New("disk gone")
	s = &source{r: io.MultiReader(bytes.NewReader(content[:7]), iotest.ErrReader(broken))}
	_, err = io.ReadAll(s)
	require.Equal(t, broken, err)
	done, err = s.end()
	assert.EqualValues(t, 7, done)
	require.ErrorAs(t, err, new(*sourceError))
	require.ErrorIs(t, err, broken)
	require.EqualError(t, err, "read the tarball: disk gone")

	// That it was closed is none: net/http reads on when the answer is there.
	s = &source{r: iotest.ErrReader(os.ErrClosed)}
	_, err = io.ReadAll(s)
	require.ErrorIs(t, err, os.ErrClosed)
	_, err = s.end()
	require.NoError(t, err)

	// Nor is anybody told when it has ended.
	s = &source{r: bytes.NewReader(content), tell: func(cache.Progress) { t.Error("told") }}
	_, _ = s.end()
	_, err = s.Read(make([]byte, 10))
	require.ErrorIs(t, err, os.ErrClosed)
}
