package awsauth

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/dockercache/dockercache/internal/wait"
)

// A lease is a value that is good for some time. It is asked for on first use
// and again when a twelfth of its lifetime is left. All who want it while it is
// asked for share one request.
type lease[T any] struct {
	// renew returns a new value and when it ends, by the clock of now.
	renew func(context.Context) (T, time.Time, error)
	now   func() time.Time
	// limit bounds a renewal with all its retries. Who waits for it can leave
	// before; one without end would hold up everybody after them as well.
	limit time.Duration
	// kept is told why a value was not renewed that is good until then.
	kept func(why error, until time.Time)

	mu       sync.Mutex
	value    T
	due, end time.Time // when to renew it, when it ends; zero: there is no value
	renewing bool
	requests singleflight.Group
}

// current returns the value if there is no need to ask for another: it is not
// due, or somebody is about to renew it and it is good until then.
func (l *lease[T]) current() (T, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	return l.value, now.Before(l.due) || l.renewing && now.Before(l.end)
}

// get returns a value that is good. The error is that of renew, or the cause of
// ctx's end.
func (l *lease[T]) get(ctx context.Context) (T, error) {
	if value, ok := l.current(); ok {
		return value, nil
	}
	if ctx.Err() != nil {
		var none T
		return none, wait.Err(ctx)
	}
	// The request is everybody's, so it does not end with the first one's context.
	request := l.requests.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), l.limit, fmt.Errorf("given up after %v", l.limit))
		defer cancel()
		return l.ask(ctx)
	})
	select {
	case done := <-request:
		value, _ := done.Val.(T)
		return value, done.Err
	case <-ctx.Done():
		var none T
		return none, wait.Err(ctx)
	}
}

func (l *lease[T]) ask(ctx context.Context) (T, error) {
	// The one before may have ended between the look at the value and here.
	if value, ok := l.current(); ok {
		return value, nil
	}
	l.setRenewing(true)
	defer l.setRenewing(false)
	value, end, err := l.renew(ctx)

	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if err == nil {
		l.value, l.end, l.due = value, end, end.Add(-end.Sub(now)/12)
		return value, nil
	}
	if left := l.end.Sub(now); left > 0 {
		// Not at each use from now on: that would put a failing request before
		// every request to the registry.
		l.due = now.Add(max(left/5, time.Second))
		l.kept(err, l.end)
		return l.value, nil
	}
	var none T
	return none, err
}

func (l *lease[T]) setRenewing(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renewing = yes
}

// forget drops the value, if it is one that refused tells. The next who wants
// one asks anew.
func (l *lease[T]) forget(refused func(T) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.end.IsZero() && refused(l.value) {
		var none T
		l.value, l.due, l.end = none, time.Time{}, time.Time{}
	}
}
