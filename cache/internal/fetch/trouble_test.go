package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// drip gives so many bytes with each request, takes its time for them, and then closes
// the connection.
type drip struct {
	cachetest.Blobs
	bytes    int64
	takes    time.Duration
	cut      error // nil: the body just ends
	requests int
}

func (s *drip) ReadRange(ctx context.Context, d v1.Hash, offset, length int64) (io.ReadCloser, error) {
	if s.requests++; s.requests > 100_000 {
		return nil, tarball.Permanent(errors.New("asked without end"))
	}
	if err := wait.Sleep(ctx, s.takes); err != nil {
		return nil, err
	}
	r, err := s.Blobs.ReadRange(ctx, d, offset, min(length, s.bytes))
	if err != nil || s.cut == nil || length <= s.bytes {
		return r, err
	}
	return io.NopCloser(io.MultiReader(r, failing{s.cut})), nil
}

// Progress is judged by its rate: a source that gives next to nothing with each request
// is not asked without end, nor without pauses; one that is slow, or breaks often, is
// read to its end.
func TestFetchJudgesProgressByItsRate(t *testing.T) {
	const size = 4 << 20 // one range
	for _, c := range []struct {
		bytes int64
		takes time.Duration
		fails bool
	}{
		{1, 0, true},
		{1, 100 * time.Millisecond, true},
		{1, time.Second, true},
		{1, time.Minute, true},
		{100, 0, true},
		{1 << 10, 500 * time.Millisecond, true},
		{10_000, 0, true},
		{10_000, time.Minute, true},
		{12_000, 0, false}, // with pauses, but six are 64 KiB
		{64 << 10, 0, false},
		{64 << 10, time.Hour, false},
		{1 << 10, time.Second, false},
		{3 << 10, 3 * time.Second, false}, // 1 KiB a second
		{20 << 10, 10 * time.Second, false},
	} {
		for _, cut := range []error{nil, errors.New("connection reset")} {
			t.Run(fmt.Sprint(c.bytes, " bytes in ", c.takes, " ", cut), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					src := &drip{Blobs: cachetest.Blobs{}, bytes: c.bytes, takes: c.takes, cut: cut}
					layer := src.Add(cachetest.Noise(1, size))
					begun := time.Now()
					n, err := New(1).Fetch(t.Context(), Job{Sink: File{tempFile(t)}, Layout: mustLayout(t, testImage(t, layer)), Source: src})
					if !c.fails {
						require.NoError(t, err)
						assert.EqualValues(t, size, n.Downloaded)
						return
					}
					require.Error(t, err)
					assert.ErrorContains(t, err, layer.Digest.String())
					assert.Equal(t, maxAttempts, src.requests)
					assert.Greater(t, time.Since(begun), maxAttempts*c.takes+firstDelay*(1<<(maxAttempts-1)-1)/2, "with pauses")
				})
			})
		}
	}
}

// The last bytes of a range, and layers of a few bytes, are progress when they come.
func TestFetchOfAFewBytesIsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &drip{Blobs: cachetest.Blobs{}, bytes: 10, cut: io.ErrUnexpectedEOF}
		layer := src.Add(cachetest.Noise(1, 160))
		n, err := New(1).Fetch(t.Context(), Job{Sink: File{tempFile(t)}, Layout: mustLayout(t, testImage(t, layer)), Source: src})
		require.NoError(t, err)
		assert.EqualValues(t, 160, n.Downloaded)
		assert.Equal(t, 16, src.requests)
	})
}
