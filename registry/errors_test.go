package registry

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
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
			assert.Error(t, (&shared{}).newError(ctx, "resolve", "host/image", &asideError{errors.New("down")}))
		})
	}
}

// A registry's Retry-After still holds when it is not asked again.
func TestErrorOfASourceSetAsideSaysWhenToAskAgain(t *testing.T) {
	before := (&shared{}).newError(t.Context(), "read", "host/image", &statusError{error: &transport.Error{StatusCode: 429}, status: 429, retryAfter: 7 * time.Second})
	for _, err := range []error{before, fmt.Errorf("config: %w", before)} {
		var after *Error
		require.ErrorAs(t, (&shared{}).newError(t.Context(), "resolve", "host/image:tag", &asideError{err}), &after)
		assert.Equal(t, 7*time.Second, after.RetryAfter())
		assert.Equal(t, ErrUnreachable, after.Kind)
		assert.ErrorContains(t, after, "resolve host/image:tag: unreachable: not asked again so soon: status 429")
	}
}

// Which of the references does not exist, and which may exist and could not be asked.
func TestIsNotFound(t *testing.T) {
	missing := &Error{Op: "resolve", Source: "a", Kind: ErrNotFound}
	away := &Error{Op: "resolve", Source: "b", Kind: ErrUnreachable}
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"nil":                 {nil, false},
		"one":                 {missing, true},
		"wrapped":             {fmt.Errorf("stock: %w", missing), true},
		"all of several":      {fmt.Errorf("stock: %w", sourceErrors{missing, missing}), true},
		"the own is away":     {sourceErrors{missing, away}, false},
		"the mirror is away":  {sourceErrors{away, missing}, false},
		"nothing of the kind": {errors.New("other"), false},
	} {
		assert.Equal(t, c.want, IsNotFound(c.err), name)
	}
}

// What New and Resolve have not made is an error, and never hangs.
func TestNeverMade(t *testing.T) {
	_, err := (&Client{}).Resolve(t.Context(), DefaultPlatform(), "example.com/a:b")
	require.ErrorContains(t, err, "New")
	_, err = (*Client)(nil).Resolve(t.Context(), DefaultPlatform(), "example.com/a:b")
	require.ErrorContains(t, err, "New")
	_, _, err = (&Resolved{}).Content(t.Context())
	require.ErrorContains(t, err, "Client.Resolve")
	_, err = (&Resolved{}).ReadRange(t.Context(), v1.Hash{}, 0, 1)
	require.ErrorContains(t, err, "Client.Resolve")
}

// A source of which the error was ignored ends a fetch at once, and never panics.
func TestReadRangeOfNothing(t *testing.T) {
	for _, image := range []*Image{{}, nil} {
		_, err := image.ReadRange(t.Context(), v1.Hash{}, 0, 1)
		var one *Error
		require.ErrorAs(t, err, &one)
		assert.False(t, one.Temporary())
		image.Distrust(v1.Hash{})
	}
	var resolved *Resolved
	assert.Zero(t, resolved.Digest())
	assert.Empty(t, resolved.Source())
	resolved.Distrust(v1.Hash{})
	assert.Empty(t, resolved.Origins(v1.Hash{}))
}
