package cache

import (
	"context"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

func TestMinRate(t *testing.T) {
	const rate = 5000
	refusing := func(ctx context.Context, src tarball.Source, times int) tarball.Source {
		return cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, offset, n int64) (io.ReadCloser, error) {
			if times--; times >= 0 {
				return nil, &later{time.Minute}
			}
			return src.ReadRange(ctx, d, offset, n)
		})
	}
	for name, c := range map[string]struct {
		gives   int64 // bytes a second
		minRate int64
		size    int
		slow    bool
		begin   func(t *testing.T, dir *Dir) // what else happens
		src     func(ctx context.Context, src tarball.Source) tarball.Source
	}{
		"less":                 {gives: rate, minRate: rate * 11 / 10, size: 100 * rate, slow: true},
		"as much":              {gives: rate, minRate: rate * 9 / 10, size: 100 * rate},
		"no limit":             {gives: 1, size: 1000},
		"over within a minute": {gives: 1, minRate: 1 << 40, size: 50},
		"it refuses":           {minRate: rate, size: 100 * rate, slow: true, src: func(ctx context.Context, src tarball.Source) tarball.Source { return refusing(ctx, src, 5) }},
		"a flush takes long":   {minRate: rate, size: 100 * rate, begin: func(t *testing.T, _ *Dir) { slowFlush(t, time.Hour) }},
		"another writer is waited for": {minRate: rate, size: 100 * rate, begin: func(t *testing.T, dir *Dir) {
			lock, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
			require.NoError(t, err)
			time.AfterFunc(time.Hour, lock.unlock)
		}},
		"another image is waited for": {minRate: 1 << 40, size: 100_000_000, begin: func(t *testing.T, dir *Dir) {
			blobs := cachetest.Blobs{}
			begin(t, dir, "other_main.tar", testImage(t, blobs.Add(cachetest.Noise(1, 100_000_000))), valveOf(blobs, 100_000), nil)
			time.Sleep(time.Second)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				dir, blobs := reopen(t, path), cachetest.Blobs{}
				img := testImage(t, blobs.Add(cachetest.Noise(1, c.size)))
				if c.begin != nil {
					c.begin(t, dir)
				}
				src := tarball.Source(valveOf(blobs, c.gives))
				if c.src != nil {
					src = c.src(t.Context(), src)
				}
				start := time.Now()
				result, err := dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, remoteOf(img, src), &PutOptions{MinRate: c.minRate})
				if !c.slow {
					require.NoError(t, err)
					requireStocked(t, dir, "name_main.tar")
					return
				}
				require.ErrorIs(t, err, ErrTooSlow)
				require.NotErrorIs(t, err, context.Canceled, "nobody has interrupted it")
				assert.InDelta(t, time.Minute, time.Since(start), float64(3*measureEvery))
				assert.NoFileExists(t, result.Path)
				if c.gives == 0 {
					return
				}
				require.Regexp(t, `^the source is too slow: (4\d\d\d|5[0-4]\d\d) bytes a second came from mirror/x:t in the last minute, and 5500 are required`, err.Error())
				assert.InDelta(t, 60*rate, result.Downloaded, 4*rate)
				again, err := dir.Put(t.Context(), "name_main.tar", img, blobs, &PutOptions{MinRate: c.minRate})
				require.NoError(t, err)
				assert.Equal(t, result.Downloaded, again.Resumed)
				assert.Equal(t, int64(c.size), again.Resumed+again.Downloaded)
			})
		})
	}
	_, err := openTestDir(t).Put(t.Context(), "name_main.tar", nil, none, &PutOptions{MinRate: -1})
	require.ErrorContains(t, err, "MinRate")
	require.ErrorContains(t, err, "0, for no limit, or more")
}

// The error names all that the bytes could have come from.
func TestTooSlowNamesOrigins(t *testing.T) {
	w := &watch{source: "mirror/x:t", minRate: 9}
	layers := []tarball.Segment{{Blob: cachetest.Digest(nil)}}
	src := &fullSource{names: []string{"one/x", "two/x"}}
	require.ErrorContains(t, w.tooSlow(5, src, append(layers, layers...)), "came from one/x and two/x in")
	require.ErrorContains(t, (&watch{}).tooSlow(5, none, layers), "came from the source in")
}

// slowFlush makes flushes take long until the test ends.
func slowFlush(t *testing.T, long time.Duration) {
	real := sys.Flush
	t.Cleanup(func() { sys.Flush = real })
	sys.Flush = func(f *os.File) error {
		time.Sleep(long)
		return real(f)
	}
}
