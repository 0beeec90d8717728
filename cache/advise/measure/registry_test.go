package measure_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/advise/measure"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/internal/tarballtest"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

const mb = 1_000_000

// A slow is a source of zeros in synthetic time: each connection gives one bytes per second, all of them
// together all, and a first byte takes a time.
type slow struct {
	one, all  float64
	firstByte time.Duration
	fails     int // this range and all later ones fail; 0: none
	noRanges  bool

	mu     sync.Mutex
	ranges int
	sent   int64
	free   time.Time // when all may send again
}

var errRefused = errors.New("too many requests")

func (s *slow) IgnoresRange() bool { return s.noRanges }

func (s *slow) ReadRange(ctx context.Context, _ v1.Hash, offset, length int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ranges++; s.fails > 0 && s.ranges >= s.fails {
		return nil, errRefused
	}
	if s.noRanges && offset > 0 {
		return nil, errors.New("no ranges")
	}
	return &slowBody{s, ctx, length, false}, nil
}

type slowBody struct {
	*slow
	ctx   context.Context
	left  int64
	begun bool
}

func (b *slowBody) Close() error { return nil }

func (b *slowBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if !b.begun {
		b.begun = true
		time.Sleep(b.firstByte)
	}
	n := min(int64(len(p)), b.left, 16<<10)
	b.mu.Lock()
	now := time.Now()
	if b.free.Before(now) {
		b.free = now
	}
	b.free = b.free.Add(time.Duration(float64(n) / b.all * 1e9))
	wait := max(b.free.Sub(now), time.Duration(float64(n)/b.one*1e9))
	b.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-b.ctx.Done():
		return 0, context.Cause(b.ctx)
	}
	b.mu.Lock()
	b.sent += n
	b.mu.Unlock()
	b.left -= n
	return int(n), nil
}

func image(t *testing.T, sizes ...int) (*tarball.Image, tarball.Source) {
	t.Helper()
	var layers []v1.Layer
	for i, size := range sizes {
		l, err := imagetest.Layer(string(rune('a'+i)), size)
		require.NoError(t, err)
		layers = append(layers, l)
	}
	img, src, err := tarballtest.Image("registry.test/team/image:1", layers...)
	require.NoError(t, err)
	return img, src
}

func TestRegistry(t *testing.T) {
	img, _ := image(t, 64<<20, 32<<20)
	for _, c := range []*slow{
		{one: 25 * mb, all: 100 * mb, firstByte: 100 * time.Millisecond},
		{one: 25 * mb, all: 20 * mb, firstByte: 20 * time.Millisecond}, // in all less than one might
		{one: 2 * mb, all: 1000 * mb},
		{one: 25 * mb, all: 100 * mb, noRanges: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, samples, err := measure.Registry(t.Context(), img, c, nil)
			require.NoError(t, err)
			assert.InDelta(t, c.firstByte.Seconds(), r.FirstByte, 0.02)
			assert.InEpsilon(t, min(c.one, c.all), r.Connection, 0.05)
			connections := 16.
			if c.noRanges {
				connections = 1 // one layer was read by the first sample, and one is left
			}
			assert.InEpsilon(t, min(connections*c.one, c.all), r.All, 0.2, "ranges begin with a first byte too")
			var counted int64
			for _, s := range samples {
				counted += s.Bytes
				assert.LessOrEqual(t, s.Took, 5*time.Second+200*time.Millisecond)
			}
			assert.InEpsilon(t, c.sent, counted, 0.01, "what was read is stated")
		})
	}
}

func TestRegistryLimitsBytes(t *testing.T) {
	img, _ := image(t, 32<<20)
	c := &slow{one: 25 * mb, all: 100 * mb}
	synctest.Test(t, func(t *testing.T) {
		_, _, err := measure.Registry(t.Context(), img, c, &measure.RegistryOptions{One: measure.Limit{Bytes: 1 << 20}, All: measure.Limit{Bytes: 4 << 20}})
		require.NoError(t, err)
		assert.InEpsilon(t, 5<<20, c.sent, 0.1)
	})
}

// One that drips, or refuses requests, ends a sample with what is known.
func TestRegistryThatDripsOrRefuses(t *testing.T) {
	img, _ := image(t, 64<<20)
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		r, samples, err := measure.Registry(t.Context(), img, &slow{one: 1000, all: mb}, &measure.RegistryOptions{One: measure.Limit{Time: time.Second}, All: measure.Limit{Time: time.Second}})
		assert.Error(t, err, "nothing has come in that time, not 16 KiB")
		assert.Nil(t, r)
		assert.Nil(t, samples)
		assert.LessOrEqual(t, time.Since(begun), 8*time.Second)

		r, samples, err = measure.Registry(t.Context(), img, &slow{one: 100_000, all: mb}, nil)
		require.NoError(t, err)
		assert.InEpsilon(t, 100_000, r.Connection, 0.05)
		assert.Equal(t, "ended by its limit of time", samples[1].Note)

		r, samples, err = measure.Registry(t.Context(), img, &slow{one: 25 * mb, all: 100 * mb, fails: 5}, nil)
		require.NoError(t, err)
		assert.InEpsilon(t, 25*mb, r.Connection, 0.05)
		assert.InEpsilon(t, 25*mb, r.All, 0.05, "what is known: one connection")
		assert.Equal(t, "ended by an error: too many requests", samples[2].Note)

		_, _, err = measure.Registry(t.Context(), img, &slow{one: 1, all: 1, fails: 1}, nil)
		require.ErrorIs(t, err, errRefused)
		require.ErrorContains(t, err, "measure the registry of registry.test/team/image:1")

		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, _, err = measure.Registry(ctx, img, &slow{one: 100_000, all: mb}, nil)
		require.ErrorIs(t, err, context.Canceled)
	})
	empty, _, err := tarballtest.Image("registry.test/team/image:1")
	require.NoError(t, err)
	_, _, err = measure.Registry(t.Context(), empty, &slow{}, nil)
	require.ErrorContains(t, err, "the image has no layer with any bytes")
}

// A real one that is slow: of each connection, and in all.
func TestRegistryOverHTTP(t *testing.T) {
	for _, c := range []struct{ one, all int64 }{{5 * mb, 0}, {0, 20 * mb}} {
		server := registrytest.New(t)
		layer, err := imagetest.Layer("a", 24<<20)
		require.NoError(t, err)
		img, err := imagetest.Image(layer)
		require.NoError(t, err)
		ref, err := server.Push("team/image:1", img)
		require.NoError(t, err)
		host, handler := listen(t, server, c.one, c.all)
		ref = host + ref[len(server.Host()):]
		resolved, err := registry.New(nil).Resolve(t.Context(), registry.DefaultPlatform(), ref)
		require.NoError(t, err)
		manifest, config, err := resolved.Content(t.Context())
		require.NoError(t, err)
		image, err := tarball.NewImage(ref, manifest, config)
		require.NoError(t, err)
		r, samples, err := measure.Registry(t.Context(), image, resolved, nil)
		require.NoError(t, err)
		t.Logf("%+v, %+v", r, samples)
		if c.one > 0 {
			assert.InEpsilon(t, c.one, r.Connection, 0.3)
			assert.Greater(t, r.All, 2*float64(c.one))
		} else {
			assert.InEpsilon(t, c.all, r.All, 0.3)
		}
		var counted int64
		for _, s := range samples {
			counted += s.Bytes
		}
		assert.GreaterOrEqual(t, handler.Written(), counted)
	}
}

func listen(t *testing.T, handler http.Handler, one, all int64) (string, *registrytest.Throttle) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	throttle := &registrytest.Throttle{Listener: listener, BytesPerSecond: one, TotalBytesPerSecond: all, Latency: 5 * time.Millisecond}
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(throttle) }()
	t.Cleanup(func() { _ = server.Close() })
	return listener.Addr().String(), throttle
}
