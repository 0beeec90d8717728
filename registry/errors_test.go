package registry

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// endsAfter is a context that ends after so many calls of Err.
type endsAfter struct {
	context.Context
	asked int
}

func (c *endsAfter) Err() error {
	if c.asked--; c.asked < 0 {
		return context.Canceled
	}
	return nil
}

func (c *endsAfter) Value(any) any { return nil }

// Whenever the context ends, there is an error and no panic.
func TestErrorOfASourceSetAside(t *testing.T) {
	for asked := range 4 {
		ctx := &endsAfter{t.Context(), asked}
		assert.NotPanics(t, func() {
			assert.Error(t, newError(ctx, "resolve", "host/image", &asideError{errors.New("down")}))
		})
	}
}

// A registry's Retry-After still holds when it is not asked again.
func TestErrorOfASourceSetAsideSaysWhenToAskAgain(t *testing.T) {
	before := newError(t.Context(), "read", "host/image", &statusError{&transport.Error{StatusCode: 429}, 429, false, 7 * time.Second})
	for _, err := range []error{before, fmt.Errorf("config: %w", before)} {
		var after *Error
		require.ErrorAs(t, newError(t.Context(), "resolve", "host/image:tag", &asideError{err}), &after)
		assert.Equal(t, 7*time.Second, after.RetryAfter())
		assert.Equal(t, ErrUnreachable, after.Kind)
		assert.ErrorContains(t, after, "resolve host/image:tag: unreachable: not asked again so soon: status 429")
	}
}
