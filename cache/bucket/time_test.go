package bucket

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// A direct client has the server answer without a connection, so that the clock of
// [synctest.Test] is that of both.
type direct struct {
	server *buckettest.Server
	hangs  func(r *http.Request) bool // reports whether a request gets no answer
}

func (d *direct) Do(r *http.Request) (response *http.Response, err error) {
	if d.hangs != nil && d.hangs(r) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	defer func() {
		if recover() != nil {
			err = io.ErrUnexpectedEOF // the server closes the connection
		}
	}()
	asked := r.Clone(r.Context())
	if asked.Body == nil {
		asked.Body = http.NoBody
	}
	recorder := httptest.NewRecorder()
	d.server.ServeHTTP(recorder, asked)
	response = recorder.Result()
	response.Request = r
	return response, nil
}

// openDirect opens a bucket through a direct client, with the time between looks as it is.
func openDirect(t testing.TB, client *direct) *Bucket {
	t.Helper()
	client.server.MinPartSize = small.least
	cfg := client.server.Config()
	cfg.HTTPClient = client
	b, err := Open(t.Context(), "s3://bucket/images", &Options{Config: &cfg})
	require.NoError(t, err)
	b.limits = &small
	b.fetcher.SetSizes(16<<10, 64<<10, 4<<10)
	return b
}

// A server that no longer answers does not hold up what has failed, or was stopped.
func TestEndWithoutAnswer(t *testing.T) {
	errBroken := tarball.Permanent(errors.New("the source broke"))
	for about, fails := range map[string]error{"recorded": errBroken, "aborted": tarball.Permanent(tarball.ErrDigest), "stopped": nil} {
		server := buckettest.New(t, "bucket")
		synctest.Test(t, func(t *testing.T) {
			var dead atomic.Bool
			b := openDirect(t, &direct{server, func(*http.Request) bool { return dead.Load() }})
			src := newSource()
			img := src.image(t, src.layers(500_000)...)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			src.fail = func(v1.Hash, int64, int64) error {
				dead.Store(true)
				if fails == nil {
					cancel(errKilled)
				}
				return fails
			}
			began := time.Now()
			_, err := b.Put(ctx, name, img, src, nil)
			require.Error(t, err, about)
			assert.LessOrEqual(t, time.Since(began), 2*lastlyAfter+time.Second, about)
			assert.GreaterOrEqual(t, time.Since(began), lastlyAfter, "%s: it was tried", about)
		})
	}
	// Likewise when the server stops to answer while its conditions are found out.
	server := buckettest.New(t, "bucket")
	server.Put("images/.probe", nil, nil)
	synctest.Test(t, func(t *testing.T) {
		b := openDirect(t, &direct{server, func(r *http.Request) bool { return r.Method == http.MethodDelete }})
		began := time.Now()
		require.NoError(t, b.checkConditions(t.Context(), ".probe"))
		assert.Equal(t, lastlyAfter, time.Since(began))
	})
}

// One that waits looks as often as the bucket says.
func TestLookEvery(t *testing.T) {
	for _, every := range []time.Duration{time.Second, 7 * time.Second} {
		after := func(least time.Duration) time.Duration { return (least + every - 1) / every * every }
		synctest.Test(t, func(t *testing.T) {
			b := &Bucket{now: time.Now, lookEvery: every}
			l, err := b.join(t.Context(), "image", nil)
			require.NoError(t, err)
			began := time.Now()
			second, err := b.join(t.Context(), "image", nil)
			require.NoError(t, err)
			assert.Equal(t, after(dripAfter), time.Since(began), "the first brings nothing")
			second.release()

			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			u := &upload{bucket: b, put: &put{}, sink: newSinkOf(nil)}
			u.sink.failed = cancel
			began = time.Now()
			defer u.watchRate(ctx, 1, l, newSource())()
			<-ctx.Done()
			require.ErrorIs(t, context.Cause(ctx), cache.ErrTooSlow)
			assert.Equal(t, after(time.Minute), time.Since(began))
		})
	}
}

// A newer run's image does not wait for an older one's under the same name, which is then
// superseded.
func TestNewerRunDoesNotWait(t *testing.T) {
	server := buckettest.New(t, "bucket")
	synctest.Test(t, func(t *testing.T) {
		b := openDirect(t, &direct{server: server})
		src, slow := newSource(), newSource()
		older, newer := slow.image(t, slow.layer(1, 300_000)), src.image(t, src.layer(2, 300_000))
		slow.slow = func(ctx context.Context, _ v1.Hash, _, _ int64) { _ = wait.Sleep(ctx, 5*time.Second) }
		run := func(id int64) *cache.PutOptions {
			return &cache.PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: id}}, Preempt: true}
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			result, err := b.Put(t.Context(), name, older, slow, run(1))
			assert.NoError(t, err)
			assert.Equal(t, cache.Superseded, result.Outcome)
		}()
		time.Sleep(time.Second)
		began := time.Now()
		result, err := b.Put(t.Context(), name, newer, src, run(2))
		require.NoError(t, err)
		assert.Equal(t, cache.Stocked, result.Outcome)
		assert.Less(t, time.Since(began), 2*time.Second)
		<-ended
		requireObject(t, server, name, newer, src.Blobs, run(2).Provenance)
		requireNothingLeft(t, server)
	})
}

// A server that asks to wait is waited for so long, by seconds or by a date.
func TestRetryAfterIsKept(t *testing.T) {
	server := buckettest.New(t, "bucket")
	synctest.Test(t, func(t *testing.T) {
		b, src := openDirect(t, &direct{server: server}), newSource()
		img := src.image(t, src.layers(100_000)...)
		server.SetQuirks(buckettest.Quirks{RetryAfter: 25, SlowDown: map[buckettest.Op]int{
			buckettest.HeadObject: 1, buckettest.PutObject: 1, buckettest.UploadPart: 1, buckettest.DeleteObject: -1,
		}})
		began := time.Now()
		_, err := b.Put(t.Context(), name, img, src, nil)
		require.NoError(t, err, "what is to be removed at the end is left for a sweep")
		took := time.Since(began)
		assert.GreaterOrEqual(t, took, 3*25*time.Second)
		assert.Less(t, took, 3*25*time.Second+lastlyAfter+time.Second)
		requireObject(t, server, name, img, src.Blobs, tarball.Provenance{})
	})
}
