// Package wait has what several packages need to wait and to say why they
// stopped.
package wait

import (
	"context"
	"time"
)

// Sleep waits for d, or until ctx ends: then the error is that of [Err].
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return Err(ctx)
	}
}

// Err returns why ctx ended, nil if it has not. The text is that of the cause.
// [errors.Is] finds both the cause and ctx.Err(), so that a caller who cancels
// with a cause of its own still sees [context.Canceled].
func Err(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != err {
		return &endError{cause, err}
	}
	return err
}

type endError struct{ cause, err error }

func (e *endError) Error() string   { return e.cause.Error() }
func (e *endError) Unwrap() []error { return []error{e.cause, e.err} }
