package tarball

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// busy is an error of a source that says all that one can say.
type busy struct{}

func (busy) Error() string             { return "busy" }
func (busy) Temporary() bool           { return true }
func (busy) RetryAfter() time.Duration { return time.Minute }
func (busy) IgnoresRange() bool        { return true }

func TestPermanent(t *testing.T) {
	require.NoError(t, Permanent(nil))
	gone := errors.New("gone")
	var temporary TemporaryError
	require.False(t, errors.As(gone, &temporary))
	err := fmt.Errorf("layer: %w", Permanent(gone))
	require.ErrorAs(t, err, &temporary)
	assert.False(t, temporary.Temporary())
	require.ErrorIs(t, err, gone)
	require.EqualError(t, err, "layer: gone")
}

// What a source's error says is found behind other errors; Permanent changes one thing
// of it.
func TestErrorsOfASource(t *testing.T) {
	for permanent, err := range map[bool]error{
		false: fmt.Errorf("read: %w", busy{}),
		true:  fmt.Errorf("read: %w", Permanent(fmt.Errorf("layer: %w", busy{}))),
	} {
		var temporary TemporaryError
		require.ErrorAs(t, err, &temporary)
		assert.Equal(t, !permanent, temporary.Temporary())
		var after RetryAfterError
		require.ErrorAs(t, err, &after)
		assert.Equal(t, time.Minute, after.RetryAfter())
		var ignorer RangeIgnorer
		require.ErrorAs(t, err, &ignorer)
		assert.True(t, ignorer.IgnoresRange())
		require.ErrorIs(t, err, busy{})
	}
}
