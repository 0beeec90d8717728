package tarball

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
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

// two is a source with as many origins as it has names; each gives its name.
type two []string

func (two) ReadRange(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
	return nil, errors.New("not asked")
}

func (s two) EachOrigin(_ v1.Hash, yield func(name, host string, parallel bool, wait time.Duration, read ReadRangeFunc) bool) {
	for n, name := range s {
		read := func(_ context.Context, _ v1.Hash, offset, length int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader([]byte(name)[offset:][:length])), nil
		}
		if !yield(name, "host", n == 1, time.Duration(n), read) {
			return
		}
	}
}

func TestOriginsOf(t *testing.T) {
	origins := OriginsOf(two{"first", "second"}, v1.Hash{})
	require.Len(t, origins, 2)
	body, err := origins[1].ReadRange(t.Context(), v1.Hash{}, 1, 3)
	require.NoError(t, err)
	got, err := io.ReadAll(body)
	require.NoError(t, err)
	assert.Equal(t, "eco", string(got))
	for n := range origins {
		origins[n].Source = nil
	}
	assert.Equal(t, []Origin{{Name: "first", Host: "host"}, {Name: "second", Host: "host", Parallel: true, Wait: 1}}, origins)

	for _, single := range []Source{two{}, struct{ Source }{two{"hidden"}}} {
		assert.Equal(t, []Origin{{Source: single}}, OriginsOf(single, v1.Hash{}))
	}
}
