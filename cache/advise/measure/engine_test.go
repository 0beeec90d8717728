package measure_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/advise/measure"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/internal/enginetest"
)

func open(t *testing.T, kind enginetest.Kind) (*enginetest.Engine, loader.Engine) {
	t.Helper()
	server := enginetest.New(t, enginetest.Options{Kind: kind})
	engine, err := loader.Open(t.Context(), loader.Host{Address: server.Address()})
	require.NoError(t, err)
	return server, engine
}

func TestEngine(t *testing.T) {
	img, src := image(t, 100_000, 8<<20)
	for _, kind := range []enginetest.Kind{enginetest.Classic, enginetest.Containerd, enginetest.Podman} {
		server, engine := open(t, kind)
		temp := t.TempDir()
		asked, started, opened := 0, 0, 0
		e, samples, err := measure.Engine(t.Context(), engine, img, src, &measure.EngineOptions{TempDir: temp, Limit: measure.Limit{Time: time.Hour}, Ask: func(ctx context.Context, reference string) error {
			asked++
			id, _, err := engine.Find(ctx, reference)
			assert.NotEqual(t, v1.Hash{}, id, "the engine has %s", reference)
			return err
		}, Start: func(context.Context) error { started++; return nil }, Open: func(ctx context.Context) (loader.Engine, error) {
			opened++
			return loader.Open(ctx, loader.Host{Address: server.Address()})
		}})
		require.NoError(t, err)
		assert.Equal(t, 5, opened)
		assert.Equal(t, 5, started)
		assert.Positive(t, e.Ask)
		assert.Equal(t, 5, asked)
		assert.Positive(t, e.PullPresent)
		assert.Positive(t, e.Intake)
		assert.Positive(t, e.Unpack)
		assert.Positive(t, e.Find)
		assert.GreaterOrEqual(t, e.Fixed, 0.0)
		assert.Equal(t, kind != enginetest.Classic, e.Pulls)
		wanted, pulls := 9, 4
		if kind == enginetest.Classic {
			wanted += 4
			require.NotNil(t, e.Pulling)
			assert.Positive(t, e.Pulling.Intake)
			assert.Equal(t, "pulled by the engine", samples[11].What)
		} else {
			assert.Nil(t, e.Pulling)
		}
		assert.Equal(t, pulls+1+5, server.Pulls(), "and those of an image that is there, the first without its name")
		require.Len(t, samples, wanted)
		assert.InEpsilon(t, 8<<20, samples[0].Bytes, 0.01)
		assert.InEpsilon(t, 2<<20, samples[1].Bytes, 0.1, "the small one")
		assert.InEpsilon(t, 8<<20, samples[2].Bytes, 0.1, "the large one")
		assert.Equal(t, "5 loads of an image that is there", samples[5].What)
		assert.Equal(t, "5 questions by its own client", samples[7].What)
		assert.Equal(t, "5 pulls of an image that is there", samples[wanted-1].What)
		assert.Empty(t, server.Names(), "the samples are gone")
		assert.Empty(t, server.IDs(), "the samples are gone")
		assertEmpty(t, temp)
	}
}

// The limit of bytes is of the layer that is read; that of time ends the loads that are for accuracy.
func TestEngineLimits(t *testing.T) {
	img, src := image(t, 8<<20)
	_, engine := open(t, enginetest.Classic)
	_, samples, err := measure.Engine(t.Context(), engine, img, src, &measure.EngineOptions{TempDir: t.TempDir(), Limit: measure.Limit{Time: 1, Bytes: 1 << 20}})
	require.NoError(t, err)
	require.Len(t, samples, 4)
	assert.LessOrEqual(t, samples[2].Bytes, int64(1<<20))
}

// An engine that cannot pull from loopback is one all the same.
func TestEngineCannotPull(t *testing.T) {
	img, src := image(t, 1<<20)
	server, engine := open(t, enginetest.Classic)
	server.SetQuirks(enginetest.Quirks{PullFails: "no route to host"})
	e, samples, err := measure.Engine(t.Context(), engine, img, src, &measure.EngineOptions{TempDir: t.TempDir(), Limit: measure.Limit{Time: time.Hour}})
	require.NoError(t, err)
	assert.Nil(t, e.Pulling)
	assert.Contains(t, samples[len(samples)-1].Note, "no route to host")
	assert.Empty(t, server.Names(), "the samples are gone")
}

// Without the engine's client a way that needs it is taken to start as load-image does.
func TestEngineClientFails(t *testing.T) {
	img, src := image(t, 1<<20)
	_, engine := open(t, enginetest.Podman)
	e, samples, err := measure.Engine(t.Context(), engine, img, src, &measure.EngineOptions{TempDir: t.TempDir(), Limit: measure.Limit{Time: time.Hour},
		Ask:   func(context.Context, string) error { return errors.New("no such client") },
		Start: func(context.Context) error { return errors.New("no such program") }})
	require.NoError(t, err)
	_, _, err = measure.Engine(t.Context(), engine, img, src, &measure.EngineOptions{TempDir: t.TempDir(), Open: func(context.Context) (loader.Engine, error) {
		return nil, errors.New("the engine has gone")
	}})
	require.ErrorContains(t, err, "the engine has gone")
	assert.Zero(t, e.Ask)
	assert.Greater(t, e.Find, 0.06, "what is assumed of the start")
	assert.Contains(t, samples[6].Note, "no such program")
	assert.Contains(t, samples[7].Note, "no such client")
}

var errInterrupted = errors.New("interrupted")

// ending is an engine with which the context ends while a load is verified.
type ending struct {
	loader.Engine
	remover loader.Remover
	left    int // loads before that
	end     func()
	stays   error // of Remove
}

func (e *ending) Verify(ctx context.Context, id v1.Hash) error {
	if e.left--; e.left < 0 {
		e.end()
	}
	return e.Engine.Verify(ctx, id)
}

func (e *ending) Remove(ctx context.Context, ref string) error {
	return errors.Join(e.remover.Remove(ctx, ref), e.stays)
}

func TestEngineLeavesNothing(t *testing.T) {
	img, src := image(t, 1<<20)
	for n := range 4 {
		server, engine := open(t, enginetest.Classic)
		ctx, cancel := context.WithCancelCause(t.Context())
		temp := t.TempDir()
		e := &ending{Engine: engine, remover: engine.(loader.Remover), left: n, end: func() { cancel(errInterrupted) }}
		_, _, err := measure.Engine(ctx, e, img, src, &measure.EngineOptions{TempDir: temp, Limit: measure.Limit{Time: time.Hour}})
		require.ErrorIs(t, err, errInterrupted, "%d", n)
		require.ErrorContains(t, err, "measure how the engine loads registry.test/team/image:1")
		assert.Empty(t, server.Names())
		assert.Empty(t, server.IDs())
		assertEmpty(t, temp)
	}
}

// leaving is an engine that goes on with a load that nobody waits for, as Docker's does.
type leaving struct {
	ending
	left bool
}

func (l *leaving) Load(ctx context.Context, archive io.Reader, size int64) error {
	l.end()
	l.left = ctx.Err() != nil
	return l.Engine.Load(ctx, archive, size)
}

func TestEngineWaitsForLoad(t *testing.T) {
	img, src := image(t, 1<<20)
	server, engine := open(t, enginetest.Classic)
	ctx, cancel := context.WithCancelCause(t.Context())
	e := &leaving{ending: ending{Engine: engine, remover: engine.(loader.Remover), left: 100, end: func() { cancel(errInterrupted) }}}
	_, _, err := measure.Engine(ctx, e, img, src, &measure.EngineOptions{TempDir: t.TempDir()})
	require.ErrorIs(t, err, errInterrupted)
	assert.False(t, e.left, "the engine would name the image later")
	assert.Empty(t, server.IDs())
}

func TestEngineSaysWhatStays(t *testing.T) {
	img, src := image(t, 1<<20)
	_, engine := open(t, enginetest.Classic)
	e := &ending{Engine: engine, remover: engine.(loader.Remover), left: 100, stays: loader.ErrInUse}
	_, _, err := measure.Engine(t.Context(), e, img, src, &measure.EngineOptions{TempDir: t.TempDir()})
	require.ErrorIs(t, err, loader.ErrInUse)
	require.ErrorContains(t, err, "the sample localhost/dockercache-advise:")
	require.ErrorContains(t, err, "stays in the engine")

	_, _, err = measure.Engine(t.Context(), struct{ loader.Engine }{engine}, img, src, nil)
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

func TestLoads(t *testing.T) {
	e, err := measure.Loads([]measure.Load{
		{Bytes: 100 * mb, Stream: time.Second, Engine: 2 * time.Second, Fixed: 500 * time.Millisecond},
		{Bytes: 300 * mb, Stream: time.Second, Engine: 6 * time.Second, Fixed: 300 * time.Millisecond},
		{}, // nothing is known of it
	}, true)
	require.NoError(t, err)
	assert.InDelta(t, 200*mb, e.Intake, 1)
	assert.InDelta(t, 50*mb, e.Unpack, 1)
	assert.InDelta(t, 0.5, e.Fixed, 1e-9)
	assert.True(t, e.Pulls)
	_, err = measure.Loads([]measure.Load{{Bytes: 5}}, false)
	require.ErrorContains(t, err, "no load is recorded")
}
