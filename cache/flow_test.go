package cache

import (
	"bytes"
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
)

func TestSlowness(t *testing.T) {
	const kib = 1 << 10
	always := func(time.Duration) bool { return true }
	for name, c := range map[string]struct {
		got    func(at time.Duration) int64 // in the two seconds before
		awaits func(at time.Duration) bool
		slow   time.Duration // when it is first seen; 0: never
	}{
		"a byte a second on each of 16 ranges": {func(time.Duration) int64 { return 32 }, always, dripAfter},
		"a byte every 4 s":                     {func(at time.Duration) int64 { return int64(at/time.Second) % 4 / 2 }, always, dripAfter},
		"a byte every 8 s":                     {func(at time.Duration) int64 { return int64(at/time.Second) % 8 / 6 }, always, nothingAfter},
		"nothing":                              {func(time.Duration) int64 { return 0 }, always, nothingAfter},
		"50 KiB/s":                             {func(time.Duration) int64 { return 2 * 50 * kib }, always, dripAfter},
		"64 KiB/s":                             {func(time.Duration) int64 { return 2 * 64 * kib }, always, 0},
		"1 GB/s":                               {func(time.Duration) int64 { return 2 << 30 }, always, 0},
		"16 connections of 64 KiB/s that are seen 1 MiB at a time": {func(at time.Duration) int64 {
			if int64(at/time.Second)%16 == 0 {
				return 16 << 20
			}
			return 0
		}, always, 0},
		"a refused request waits 60 s, again and again": {func(at time.Duration) int64 {
			if int64(at/time.Second)%64 == 0 {
				return 1 << 20
			}
			return 0
		}, always, 0},
		"little, then a refused request waits 60 s": {func(at time.Duration) int64 {
			if at <= 4*time.Second || at > 64*time.Second {
				return 300 * kib
			}
			return 0
		}, always, 0},
		"fast, then a drip": {func(at time.Duration) int64 {
			if at <= time.Minute {
				return 1 << 30
			}
			return 1
		}, always, time.Minute + dripAfter},
		"nothing is missing": {func(time.Duration) int64 { return 0 }, func(time.Duration) bool { return false }, 0},
		"something is missing after an hour": {func(time.Duration) int64 { return 1 }, func(at time.Duration) bool { return at > time.Hour },
			time.Hour + dripAfter},
	} {
		var s slowness
		begin, got, slow := time.Unix(1_700_000_000, 0), int64(0), time.Duration(0)
		for at := time.Duration(0); at < 2*time.Hour && slow == 0; at += measureEvery {
			got += c.got(at)
			if s.isSlow(begin.Add(at), c.awaits(at), got) {
				slow = at
			}
		}
		if c.slow == 0 {
			assert.Zero(t, slow, name)
		} else {
			assert.InDelta(t, c.slow, slow, float64(3*measureEvery), name)
		}
	}
}

// What was slow is not any more when enough comes.
func TestSlownessEnds(t *testing.T) {
	var s slowness
	now, got := time.Unix(1_700_000_000, 0), int64(0)
	measure := func(came int64) bool {
		now, got = now.Add(measureEvery), got+came
		return s.isSlow(now, true, got)
	}
	for range 100 {
		measure(1)
	}
	assert.True(t, measure(1))
	assert.False(t, measure(1<<20))
	assert.False(t, measure(1), "it begins again")
}

func TestRate(t *testing.T) {
	begin := time.Unix(1_700_000_000, 0)
	for name, c := range map[string]struct {
		came   func(second int) int64
		awaits func(second int) bool
		want   []int64 // after 58, 62, 122 s; -1: not known
	}{
		"steady":              {func(int) int64 { return 1000 }, func(int) bool { return true }, []int64{-1, 1000, 1000}},
		"fast, then nothing":  {func(s int) int64 { return int64(max(60-s, 0)) }, func(int) bool { return true }, []int64{-1, 27, 0}},
		"every other minute":  {func(s int) int64 { return 1000 }, func(s int) bool { return s < 40 || s > 80 }, []int64{-1, -1, 1000}},
		"what comes unwanted": {func(s int) int64 { return map[bool]int64{true: 10, false: 1_000_000}[s <= 40 || s > 80] }, func(s int) bool { return s <= 40 || s > 80 }, []int64{-1, -1, 10}},
	} {
		var r rate
		came, got := int64(0), map[int]int64{}
		for s := range 123 {
			came += c.came(s)
			if s%2 != 0 {
				continue
			}
			n, ok := r.overMinute(begin.Add(time.Duration(s)*time.Second), c.awaits(s), came)
			if got[s] = n; !ok {
				got[s] = -1
			}
		}
		assert.Equal(t, c.want, []int64{got[58], got[62], got[122]}, name)
		assert.Less(t, len(r.samples), 40, name)
	}
	// A process that was suspended for an hour did not read.
	var r rate
	for s := range 31 {
		r.overMinute(begin.Add(time.Duration(2*s)*time.Second), true, int64(2000*s))
	}
	n, ok := r.overMinute(begin.Add(time.Hour), true, 62_000)
	assert.True(t, ok)
	assert.InDelta(t, 1000, n, 50)
}

// A fetch sees all that a source can say.
func TestMeasuredSource(t *testing.T) {
	blobs := cachetest.Blobs{}
	layer := blobs.Add([]byte("0123456789")).Digest
	f := &flow{}
	plain := f.measured(blobs)
	assert.NotImplements(t, (*tarball.MultiSource)(nil), plain)
	assert.False(t, plain.(tarball.RangeIgnorer).IgnoresRange())
	assert.Empty(t, plain.(tarball.OriginReporter).Origins(layer))
	plain.(tarball.Distruster).Distrust(layer)

	full := &fullSource{Blobs: blobs}
	m := f.measured(full)
	assert.True(t, m.(tarball.RangeIgnorer).IgnoresRange())
	assert.Equal(t, []string{"o"}, m.(tarball.OriginReporter).Origins(layer))
	m.(tarball.Distruster).Distrust(layer)
	assert.Equal(t, layer, full.distrusted)
	for range 2 { // what the source returned is not changed
		origins := tarball.OriginsOf(m, layer)
		require.Len(t, origins, 1)
		assert.Equal(t, "o", origins[0].Name)
		before := f.came.Load()
		r, err := origins[0].ReadRange(t.Context(), layer, 2, 3)
		require.NoError(t, err)
		assert.True(t, f.awaits())
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		assert.Equal(t, "234", string(got))
		require.NoError(t, r.Close())
		_ = r.Close()
		assert.False(t, f.awaits())
		assert.EqualValues(t, 3, f.came.Load()-before, "once")
	}
	f.lacking.Store(true)
	assert.False(t, f.awaits(), "there may be no connection for it")
	ctx, cancel := context.WithCancel(t.Context())
	for name, failing := range map[string]tarball.Source{
		"refused": none,
		"ends early": cachetest.SourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader([]byte("1"))), nil
		}),
		"breaks": cachetest.SourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader([]byte("1")), &broken{})), nil
		}),
	} {
		if r, err := f.measured(failing).ReadRange(ctx, layer, 0, 5); err == nil {
			_, _ = io.ReadAll(r)
			require.NoError(t, r.Close())
		}
		assert.True(t, f.awaits(), "%s: it is asked again", name)
		f.failed.Store(false)
	}
	cancel()
	_, err := f.measured(none).ReadRange(ctx, layer, 0, 5)
	require.Error(t, err)
	assert.False(t, f.awaits(), "this process ended it")
	nothing := cachetest.SourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) { return nil, nil })
	r, err := f.measured(nothing).ReadRange(t.Context(), layer, 0, 5)
	assert.True(t, r == nil && err == nil)
}

type broken struct{}

func (*broken) Read([]byte) (int, error) { return 0, errors.New("broken") }

// fullSource is a source that can say all.
type fullSource struct {
	cachetest.Blobs
	distrusted v1.Hash
	names      []string // of its origins; "o" without any
}

func (s *fullSource) Distrust(d v1.Hash)       { s.distrusted = d }
func (s *fullSource) Origins(v1.Hash) []string { return []string{"o"} }
func (s *fullSource) IgnoresRange() bool       { return true }
func (s *fullSource) EachOrigin(_ v1.Hash, yield func(name, host string, parallel bool, wait time.Duration, read tarball.ReadRangeFunc) bool) {
	for _, name := range append(s.names, "o")[:max(len(s.names), 1)] {
		if !yield(name, "", false, 0, s.ReadRange) {
			return
		}
	}
}
