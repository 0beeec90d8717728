package registry

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
)

// endsAfter is a context that ends after it was asked so often.
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
