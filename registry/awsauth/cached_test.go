package awsauth

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A fakeCached has a clock and a renewal that the test sets.
type fakeCached struct {
	cached[string]
	clock time.Time
	asked int
	err   error
	kept  []string
}

func newFakeCached() *fakeCached {
	l := &fakeCached{clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	l.now = func() time.Time { return l.clock }
	l.limit = time.Minute
	l.renew = func(context.Context) (string, time.Time, error) {
		l.asked++
		return fmt.Sprint("value-", l.asked), l.clock.Add(12 * time.Hour), l.err
	}
	l.cached.kept = func(_ context.Context, why error, until time.Time) {
		l.kept = append(l.kept, fmt.Sprint(why, " until ", until.Format("15:04")))
	}
	return l
}

func (l *fakeCached) expect(t *testing.T, want string) {
	t.Helper()
	got, err := l.get(t.Context())
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

func TestCachedIsRenewedBeforeItEnds(t *testing.T) {
	l := newFakeCached()
	l.expect(t, "value-1")
	l.clock = l.clock.Add(11*time.Hour - time.Second)
	l.expect(t, "value-1")
	late, err := l.ask(t.Context()) // by one who looked before it came
	require.NoError(t, err)
	assert.Equal(t, "value-1", late)
	l.clock = l.clock.Add(time.Second)
	l.expect(t, "value-2")
	l.clock = l.clock.Add(11*time.Hour - time.Second)
	l.expect(t, "value-2")
}

// While the old value is good, a renewal that fails is a warning; and it is not
// repeated at each use.
func TestCachedOutlivesAFailedRenewal(t *testing.T) {
	l := newFakeCached()
	l.expect(t, "value-1")
	l.err = errors.New("no")
	l.clock = l.clock.Add(11 * time.Hour)
	for range 10 {
		l.expect(t, "value-1")
	}
	assert.Equal(t, 2, l.asked)
	assert.Equal(t, []string{"no until 12:00"}, l.kept)
	l.clock = l.clock.Add(12 * time.Minute)
	l.expect(t, "value-1")
	assert.Equal(t, 3, l.asked, "tried again when a fifth of the time that was left has passed")

	l.err = nil
	l.clock = l.clock.Add(12 * time.Minute)
	l.expect(t, "value-4")

	l.err = errors.New("no")
	l.clock = l.clock.Add(12 * time.Hour)
	_, err := l.get(t.Context())
	require.ErrorIs(t, err, l.err, "it has ended")
}

func TestCachedForgets(t *testing.T) {
	l := newFakeCached()
	l.forget(func(string) bool { t.Error("there is none"); return true })
	l.expect(t, "value-1")
	l.forget(func(v string) bool { return v == "value-0" })
	l.expect(t, "value-1")
	l.forget(func(v string) bool { return v == "value-1" })
	l.expect(t, "value-2")
}

// A value that has ended when it comes is returned once.
func TestCachedOfNoLength(t *testing.T) {
	l := newFakeCached()
	l.renew = func(context.Context) (string, time.Time, error) {
		l.asked++
		return fmt.Sprint("value-", l.asked), l.clock.Add(-time.Hour), nil
	}
	l.expect(t, "value-1")
	l.expect(t, "value-2")
}

// blockedCached has renewals that wait until the test lets them go on.
func blockedCached() (l *cached[int], asked *atomic.Int32, goOn chan error) {
	asked, goOn = new(atomic.Int32), make(chan error)
	return &cached[int]{
		now: time.Now, limit: time.Minute, kept: func(context.Context, error, time.Time) {},
		renew: func(ctx context.Context) (int, time.Time, error) {
			n := asked.Add(1)
			select {
			case err := <-goOn:
				return int(n), time.Now().Add(12 * time.Hour), err
			case <-ctx.Done():
				return 0, time.Time{}, context.Cause(ctx)
			}
		},
	}, asked, goOn
}

// Callers share one request, and it does not end with one of them, not even with
// the first.
func TestCachedIsSharedWhileAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, asked, goOn := blockedCached()
		why := errors.New("left")
		ctx, leave := context.WithCancelCause(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			_, err := l.get(ctx)
			assert.ErrorIs(t, err, why)
		})
		synctest.Wait()
		for range 100 {
			all.Go(func() {
				v, err := l.get(t.Context())
				assert.NoError(t, err)
				assert.Equal(t, 1, v)
			})
		}
		synctest.Wait()
		leave(why)
		synctest.Wait()
		goOn <- nil
		all.Wait()
		assert.Equal(t, int32(1), asked.Load())
	})
}

// While a value is renewed, other callers get the one that is still good.
func TestCachedServesDuringRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, asked, goOn := blockedCached()
		var all sync.WaitGroup
		get := func(want int) {
			v, err := l.get(t.Context())
			assert.NoError(t, err)
			assert.Equal(t, want, v)
		}
		all.Go(func() { get(1) })
		goOn <- nil
		all.Wait()
		time.Sleep(11 * time.Hour) // of the bubble's clock
		all.Go(func() { get(2) })
		synctest.Wait()
		get(1)
		goOn <- nil
		all.Wait()
		get(2)
		assert.Equal(t, int32(2), asked.Load())
	})
}

// A renewal without an end does not block later callers.
func TestCachedGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, goOn := blockedCached()
		begin := time.Now() // of the bubble's clock
		_, err := l.get(t.Context())
		require.ErrorContains(t, err, "given up after 1m0s")
		assert.Equal(t, time.Minute, time.Since(begin))
		go func() { goOn <- nil }()
		v, err := l.get(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 2, v)
	})
}

// A call whose context has ended begins nothing.
func TestCachedContextEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, asked, _ := blockedCached()
		why := errors.New("left")
		ctx, leave := context.WithCancelCause(t.Context())
		leave(why)
		_, err := l.get(ctx)
		require.ErrorIs(t, err, why)
		synctest.Wait()
		assert.Zero(t, asked.Load())
	})
}
