package awsauth

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/dockercache/dockercache/internal/wait"
)

// A cached is a value that is good for some time. It is asked for on first use
// and again when a twelfth of its lifetime is left. Callers share one request. It
// is safe for concurrent use.
type cached[T any] struct {
	// renew returns a new value and when it ends, by the clock of now.
	renew func(context.Context) (T, time.Time, error)
	now   func() time.Time
	// limit bounds a renewal with all its retries. A caller can stop waiting
	// before; one without end would block all later callers as well.
	limit time.Duration
	// kept is called when a value could not be renewed that is good until then.
	kept func(ctx context.Context, why error, until time.Time)

	mu       sync.Mutex
	value    T
	due, end time.Time // when to renew it, when it ends; zero: there is no value
	renewing bool
	requests singleflight.Group
}

// current returns the value if there is no need to ask for another: it is not
// due, or it is being renewed and good until then.
func (c *cached[T]) current() (T, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	return c.value, now.Before(c.due) || c.renewing && now.Before(c.end)
}

// get returns a value that is good. The error is that of renew, or of ctx's end.
func (c *cached[T]) get(ctx context.Context) (T, error) {
	if value, ok := c.current(); ok {
		return value, nil
	}
	var none T
	if ctx.Err() != nil {
		return none, wait.Err(ctx)
	}
	// The request is for all callers, so it does not end with the first one's context.
	request := c.requests.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), c.limit, fmt.Errorf("given up after %v", c.limit))
		defer cancel()
		return c.ask(ctx)
	})
	select {
	case done := <-request:
		value, _ := done.Val.(T)
		return value, done.Err
	case <-ctx.Done():
		return none, wait.Err(ctx)
	}
}

func (c *cached[T]) ask(ctx context.Context) (T, error) {
	// The request before may have ended between the look at the value and here.
	if value, ok := c.current(); ok {
		return value, nil
	}
	c.setRenewing(true)
	defer c.setRenewing(false)
	value, end, err := c.renew(ctx)

	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if err == nil {
		c.value, c.end, c.due = value, end, end.Add(-end.Sub(now)/12)
		return value, nil
	}
	if left := c.end.Sub(now); left > 0 {
		// Not at each use from now on: that would put a failing request before
		// every request to the registry.
		c.due = now.Add(max(left/5, time.Second))
		c.kept(ctx, err, c.end)
		return c.value, nil
	}
	var none T
	return none, err
}

func (c *cached[T]) setRenewing(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewing = yes
}

// forget drops the value, if refused reports that it is the one to drop. The next
// get asks for another.
func (c *cached[T]) forget(refused func(T) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.end.IsZero() && refused(c.value) {
		var none T
		c.value, c.due, c.end = none, time.Time{}, time.Time{}
	}
}
