package cache

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/cache/timing/timingtest"
)

func TestStockTellsItsPhases(t *testing.T) {
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 5000)))
	dir := openTestDir(t)
	phases := &timingtest.Log{}
	o := &PutOptions{Observer: phases}
	_, err := dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, remoteOf(img, src), o)
	require.NoError(t, err)
	assert.Equal(t, []timing.Phase{
		timing.Look, timing.Resolve, timing.Look, timing.Lock, timing.Look, timing.Copy, timing.FirstByte, timing.Hash, timing.Publish, timing.Look, timing.Publish,
	}, phases.Phases(t))

	_, err = dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, remoteOf(img, none), o)
	require.NoError(t, err)
	assert.Equal(t, []timing.Phase{timing.Look}, phases.Phases(t), "there already")

	_, err = dir.Put(t.Context(), "other_main.tar", img, none, o)
	require.NoError(t, err)
	fromHere := phases.Phases(t)
	assert.NotContains(t, fromHere, timing.Fetch)
	assert.NotContains(t, fromHere, timing.FirstByte, "all of it is in another tarball")
	assert.Contains(t, fromHere, timing.Copy)
}

// The last phase ends with an error too.
func TestPhasesEndWithAnError(t *testing.T) {
	img := testImage(t, cachetest.Blobs{}.Add(cachetest.Noise(1, 5000)))
	phases := &timingtest.Log{}
	o := &PutOptions{Observer: phases}
	broken := errors.New("broken")
	r := remoteOf(img, none)
	r.contentErr = broken
	_, err := openTestDir(t).Stock(t.Context(), "name_main.tar", cachetest.Ref, r, o)
	require.ErrorIs(t, err, broken)
	assert.Equal(t, []timing.Phase{timing.Look, timing.Resolve}, phases.Phases(t))

	failing := cachetest.SourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
		return nil, tarball.Permanent(broken)
	})
	_, err = openTestDir(t).Put(t.Context(), "name_main.tar", img, failing, o)
	require.ErrorIs(t, err, broken)
	assert.Contains(t, phases.Phases(t), timing.FirstByte)
}

// An image that waits for a layer that another is bringing says so.
func TestWaitingForAnotherImageIsAPhase(t *testing.T) {
	src := cachetest.Blobs{}
	shared, own := src.Add(cachetest.Noise(1, 5000)), src.Add(cachetest.Noise(2, 300))
	dir := openTestDir(t)
	began, release := make(chan struct{}), make(chan struct{})
	leader := make(chan error, 1)
	go func() {
		_, err := dir.Put(t.Context(), "a_main.tar", testImage(t, shared), cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, offset, length int64) (io.ReadCloser, error) {
			close(began)
			<-release
			return src.ReadRange(ctx, d, offset, length)
		}), nil)
		leader <- err
	}()
	<-began
	locks := 0
	_, err := dir.Put(t.Context(), "b_main.tar", testImage(t, shared, own), src, &PutOptions{Observer: observe(func(p timing.Phase) {
		if p != timing.Lock {
			return
		}
		if locks++; locks == 2 { // the first one is the tarball's
			close(release)
		}
	})})
	require.NoError(t, err)
	require.NoError(t, <-leader)
}

// observe is an observer that calls a function.
type observe func(timing.Phase)

func (o observe) Begin(p timing.Phase, _ time.Time) { o(p) }
