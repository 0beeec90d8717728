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

// A fakeLease has a clock and a renewal of the test's own.
type fakeLease struct {
	lease[string]
	clock time.Time
	asked int
	err   error
	kept  []string
}

func newFakeLease() *fakeLease {
	l := &fakeLease{clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	l.now = func() time.Time { return l.clock }
	l.limit = time.Minute
	l.renew = func(context.Context) (string, time.Time, error) {
		l.asked++
		return fmt.Sprint("value-", l.asked), l.clock.Add(12 * time.Hour), l.err
	}
	l.lease.kept = func(why error, until time.Time) {
		l.kept = append(l.kept, fmt.Sprint(why, " until ", until.Format("15:04")))
	}
	return l
}

func (l *fakeLease) expect(t *testing.T, want string) {
	t.Helper()
	got, err := l.get(t.Context())
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

func TestLeaseIsRenewedBeforeItEnds(t *testing.T) {
	l := newFakeLease()
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
func TestLeaseOutlivesAFailedRenewal(t *testing.T) {
	l := newFakeLease()
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

func TestLeaseForgets(t *testing.T) {
	l := newFakeLease()
	l.forget(func(string) bool { t.Error("there is none"); return true })
	l.expect(t, "value-1")
	l.forget(func(v string) bool { return v == "value-0" })
	l.expect(t, "value-1")
	l.forget(func(v string) bool { return v == "value-1" })
	l.expect(t, "value-2")
}

// A value that is over when it comes is given out once.
func TestLeaseOfNoLength(t *testing.T) {
	l := newFakeLease()
	l.renew = func(context.Context) (string, time.Time, error) {
		l.asked++
		return fmt.Sprint("value-", l.asked), l.clock.Add(-time.Hour), nil
	}
	l.expect(t, "value-1")
	l.expect(t, "value-2")
}

// blockedLease has renewals that wait until the test lets them go on.
func blockedLease() (l *lease[int], asked *atomic.Int32, goOn chan error) {
	asked, goOn = new(atomic.Int32), make(chan error)
	return &lease[int]{
		now: time.Now, limit: time.Minute, kept: func(error, time.Time) {},
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

// All who wait share one request, and one of them who leaves takes nobody along,
// not even the first.
func TestLeaseIsSharedWhileAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, asked, goOn := blockedLease()
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

// While one renews, the others go on with what is good.
func TestLeaseServesDuringRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, asked, goOn := blockedLease()
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

// A renewal without an end does not hold up those who come later.
func TestLeaseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, goOn := blockedLease()
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

// Who has given up already begins nothing.
func TestLeaseOfNoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, asked, _ := blockedLease()
		why := errors.New("left")
		ctx, leave := context.WithCancelCause(t.Context())
		leave(why)
		_, err := l.get(ctx)
		require.ErrorIs(t, err, why)
		synctest.Wait()
		assert.Zero(t, asked.Load())
	})
}
