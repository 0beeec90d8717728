package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry/registrytest"
)

// A source that keeps failing is set aside, for longer each time, and one
// request finds out whether it is back.
func TestHealth(t *testing.T) {
	now := time.Now()
	h := &health{now: func() time.Time { return now }}
	down := errors.New("down")
	for range tolerance - 1 {
		assert.True(t, h.allow())
		assert.Zero(t, h.settle(down))
	}
	assert.NoError(t, h.asideFor())
	assert.True(t, h.allow())
	assert.Equal(t, firstAside, h.settle(down))

	for _, aside := range []time.Duration{firstAside, time.Minute, 2 * time.Minute, 4 * time.Minute, longestAside, longestAside} {
		assert.False(t, h.allow())
		assert.Equal(t, down, h.asideFor())
		assert.Zero(t, h.settle(down), "asked all the same, as the last one left: no longer for that")
		now = now.Add(aside - 1)
		assert.False(t, h.allow())
		now = now.Add(1)
		assert.NoError(t, h.asideFor())
		assert.True(t, h.allow(), "after %v one may try", aside)
		assert.False(t, h.allow(), "and one alone")
		h.settle(errNeutral)
		assert.True(t, h.allow(), "the probe had no result: another")
		h.settle(down)
	}

	now = now.Add(longestAside)
	assert.True(t, h.allow())
	h.settle(nil)
	assert.True(t, h.allow())
	assert.True(t, h.allow(), "back")
	h.settle(down)
	h.settle(nil)
	h.settle(down)
	h.settle(down)
	assert.True(t, h.allow(), "only failures in a row count")
	h.settle(down)
	assert.False(t, h.allow())
	now = now.Add(firstAside)
	assert.True(t, h.allow(), "the times begin again")
}

// A login was repeated already: it fails for all.
func TestHealthOfALogin(t *testing.T) {
	now := time.Now()
	h := &health{now: func() time.Time { return now }}
	down := errors.New("down")
	h.fail(down)
	assert.False(t, h.allow())
	assert.Equal(t, down, h.asideFor())
	now = now.Add(firstAside)
	assert.True(t, h.allow())
	h.fail(down)
	now = now.Add(firstAside)
	assert.False(t, h.allow(), "twice as long")
}

// A probe that its caller gives up, before the answer or in the middle of it,
// has no result; the next one may try.
func TestProbeIsGivenUp(t *testing.T) {
	server := registrytest.New(t)
	pushed, err := random.Image(1000, 1)
	require.NoError(t, err)
	ref, err := server.Push("team/image:tag", pushed)
	require.NoError(t, err)
	image, err := New(&Options{Keychain: Chain{}}).Image(t.Context(), DefaultPlatform(), ref)
	require.NoError(t, err)
	manifest, err := pushed.Manifest()
	require.NoError(t, err)
	layer := manifest.Layers[0]
	h := &image.repositories[0].health
	now := time.Now()
	h.now = func() time.Time { return now }
	h.fail(errors.New("down"))
	now = now.Add(firstAside)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = image.ReadRange(ended, layer.Digest, 0, layer.Size)
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, h.allow())
	h.settle(errNeutral)

	body, err := image.ReadRange(t.Context(), layer.Digest, 0, layer.Size)
	require.NoError(t, err)
	require.False(t, h.allow(), "it is under way")
	require.NoError(t, body.Close())
	assert.True(t, h.allow())
}

// A connection that breaks after many bytes is just continued; one that stalls
// is a failure whatever it gave.
func TestBrokenBodies(t *testing.T) {
	for _, c := range []struct {
		given    int64
		err      error
		failures int
	}{{enough - 1, io.ErrUnexpectedEOF, 1}, {enough, io.ErrUnexpectedEOF, 0}, {enough - 1, errStalled, 1}, {enough, errStalled, 1}} {
		_, r, err := New(nil).parse("registry.example.com/image")
		require.NoError(t, err)
		inner := io.MultiReader(bytes.NewReader(make([]byte, c.given)), iotest.ErrReader(c.err))
		body := &blobBody{ctx: t.Context(), body: io.NopCloser(inner), length: 2 * enough, left: 2 * enough, source: r}
		_, err = io.Copy(io.Discard, body)
		require.ErrorIs(t, err, c.err)
		require.NoError(t, body.Close())
		assert.Equal(t, c.failures, r.health.failures, c)
	}
}

// However a range ends, it is no longer counted as one that is in flight.
func TestRangesInFlight(t *testing.T) {
	server := registrytest.New(t)
	pushed, err := random.Image(1000, 1)
	require.NoError(t, err)
	ref, err := server.Push("team/image:tag", pushed)
	require.NoError(t, err)
	manifest, err := pushed.Manifest()
	require.NoError(t, err)
	for _, q := range []registrytest.Quirks{{}, {RangeStatus: 404}, {RangeStatus: 404, RangeStatusCount: 1}, {RangeStatus: 404, RangeStatusCount: 2}, {RangeStatus: 400}, {RangeStatus: 429}, {BlobStatus: 404}, {IgnoreRange: true}, {ShortBlob: true}, {WrongContentRange: true}} {
		image, err := New(&Options{Keychain: Chain{}, RetryWait: time.Microsecond}).Image(t.Context(), DefaultPlatform(), ref)
		require.NoError(t, err)
		server.SetQuirks(q)
		for _, offset := range []int64{0, 10} {
			if body, err := image.ReadRange(t.Context(), manifest.Layers[0].Digest, offset, 100); err == nil {
				require.Equal(t, int64(1), image.repositories[0].reading.Load(), q)
				require.NoError(t, body.Close())
			}
			require.Zero(t, image.repositories[0].reading.Load(), q)
		}
		server.SetQuirks(registrytest.Quirks{})
	}
}
