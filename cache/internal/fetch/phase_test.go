package fetch

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/cache/timing/timingtest"
)

// A fetch waits for what comes from the source first, then for what is copied, then for what
// is hashed.
func TestFetchTellsItsPhases(t *testing.T) {
	src := cachetest.Blobs{}
	local, first, second := src.Add(cachetest.Noise(1, 100_000)), src.Add(cachetest.Noise(2, 5000)), src.Add(cachetest.Noise(3, 4000))
	layout := mustLayout(t, testImage(t, local, first, second))
	firstCame, fetched := make(chan struct{}), make(chan struct{})
	var once sync.Once
	phases := &timingtest.Log{}
	_, err := testFetcher(4).Fetch(t.Context(), Job{
		Sink: File{tempFile(t)}, Layout: layout, Observer: phases, Local: map[v1.Hash][]Local{local.Digest: {localFile(t, src[local.Digest])}},
		Events: &verifiedEvents{verified: func(layer v1.Hash) {
			switch layer {
			case first.Digest:
				close(firstCame)
			case second.Digest:
				once.Do(func() { close(fetched) })
			}
		}, copied: func() { <-fetched }},
		Source: cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, offset, length int64) (io.ReadCloser, error) {
			if d == second.Digest {
				<-firstCame
			}
			return src.ReadRange(ctx, d, offset, length)
		}),
	})
	require.NoError(t, err)
	timing.End(phases)
	assert.Equal(t, []timing.Phase{timing.FirstByte, timing.Fetch, timing.Copy, timing.Hash}, phases.Phases(t))
}

// verifiedEvents calls functions.
type verifiedEvents struct {
	NoEvents
	verified func(v1.Hash)
	copied   func()
}

func (e *verifiedEvents) Verified(layer v1.Hash)       { e.verified(layer) }
func (e *verifiedEvents) Copied(v1.Hash, Local, int64) { e.copied() }

// What has come already is only hashed, and a source that gives nothing is only waited for.
func TestFetchTellsWhatItDoesNotDo(t *testing.T) {
	src := cachetest.Blobs{}
	layer := src.Add(cachetest.Noise(1, 5000))
	layout := mustLayout(t, testImage(t, layer))
	phases := &timingtest.Log{}
	f := tempFile(t)
	_, err := testFetcher(4).Fetch(t.Context(), Job{Sink: File{f}, Layout: layout, Observer: phases, Source: src})
	require.NoError(t, err)
	timing.End(phases)
	assert.NotContains(t, phases.Phases(t), timing.Copy)

	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	_, err = testFetcher(4).Fetch(ctx, Job{Sink: File{tempFile(t)}, Layout: layout, Observer: phases, Source: cachetest.SourceFunc(func(ctx context.Context, _ v1.Hash, _, _ int64) (io.ReadCloser, error) {
		cancel(stop)
		return nil, context.Cause(ctx)
	})})
	require.ErrorIs(t, err, stop)
	timing.End(phases)
	assert.Equal(t, []timing.Phase{timing.FirstByte}, phases.Phases(t))
}
