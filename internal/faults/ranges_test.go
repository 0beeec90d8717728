package faults

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/tarballtest"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// A registry that answers 200 is read in one stream, one for each layer; that
// it does so is found out once.
func TestIgnoredRanges(t *testing.T) {
	t.Parallel()
	r := resolved(t, threeLayers, 1, options(), nil)
	r.own.SetQuirks(registrytest.Quirks{IgnoreRange: true})
	r.requireRight(t, r.put(t, 1, nil))
	more := 0
	for layer, requests := range allAsked(t, r.layers, r.own.Requests()) {
		last := requests[len(requests)-1]
		assert.Zero(t, last.from, layer)
		assert.Equal(t, last.to, last.sent, "the whole layer in one stream")
		more += len(requests) - 1
	}
	assert.LessOrEqual(t, more, 1, "only the first layer was asked for in ranges")
}

func TestIgnoredRangesSideBySide(t *testing.T) {
	t.Parallel()
	r := resolved(t, threeLayers, 1, options(), nil)
	r.own.SetQuirks(registrytest.Quirks{IgnoreRange: true})
	r.requireRight(t, r.put(t, 16, nil))
}

// The whole blob is never taken for the range that was asked for: that would be
// wrong bytes, and the second try that those get is needed here for another
// fault.
func TestIgnoredRangesAreNotWrongBytes(t *testing.T) {
	t.Parallel()
	r := resolved(t, oneLayer, 1, options(), nil)
	r.own.SetQuirks(registrytest.Quirks{IgnoreRange: true, CorruptBlob: true, CorruptBlobCount: 1})
	r.requireRight(t, r.put(t, 16, nil))
	assert.Equal(t, 1, r.own.Happened("CorruptBlob"))
}

// A stream that is cut can only be read again from its beginning.
func TestIgnoredRangesAndACutBody(t *testing.T) {
	t.Parallel()
	r := resolved(t, oneLayer, 1, options(), nil)
	r.own.SetQuirks(registrytest.Quirks{IgnoreRange: true, CutBodyAfter: 15 * mib, CutBodyCount: 1})
	r.requireRight(t, r.put(t, 1, nil))
	require.Equal(t, 1, r.own.Happened("CutBodyAfter"))
	requests := askedOf(t, r.layers[0], r.own.Requests())
	assert.Equal(t, r.size, requests[len(requests)-1].sent)
	ranges := 0
	for _, a := range requests {
		if a.from > 0 {
			ranges++
		}
	}
	assert.LessOrEqual(t, ranges, 1, "it was asked once for what it does not give")
}

// Behind a mirror that lacks the blobs too.
func TestIgnoredRangesOfTheNextSource(t *testing.T) {
	t.Parallel()
	r := resolved(t, oneLayer, 2, options(), nil)
	r.mirror.SetQuirks(registrytest.Quirks{BlobStatus: http.StatusNotFound})
	r.own.SetQuirks(registrytest.Quirks{IgnoreRange: true})
	r.requireRight(t, r.put(t, 2, nil))
}

// An answer for another range than was asked is not taken.
func TestWrongContentRange(t *testing.T) {
	t.Parallel()
	r := resolved(t, oneLayer, 1, options(), nil)
	r.own.SetQuirks(registrytest.Quirks{WrongContentRange: true})
	p := r.put(t, 2, nil)
	require.ErrorIs(t, p.err, registry.ErrInvalidAnswer)
	require.ErrorContains(t, p.err, "Content-Range")
	requireNoTarball(t, p)
	assert.Zero(t, p.Downloaded, "no byte of such an answer is used")
}

// The next source may know better.
func TestWrongContentRangeOfTheFirstSource(t *testing.T) {
	t.Parallel()
	r := resolved(t, oneLayer, 2, options(), nil)
	r.mirror.SetQuirks(registrytest.Quirks{WrongContentRange: true})
	p := r.put(t, 2, nil)
	r.requireRight(t, p)
	assert.Equal(t, r.size, tarballtest.Once(p.Result))
	assert.Positive(t, r.mirror.Happened("WrongContentRange"))
}
