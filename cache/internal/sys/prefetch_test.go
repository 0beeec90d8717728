package sys

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// A reader in order has all of it asked for once, in large pieces, in time, and
// nothing beyond the end.
func TestPrefetch(t *testing.T) {
	const begin, end = 4096, 4096 + 3*prefetchAhead + 1000
	var p Prefetch
	asked := int64(begin)
	for at := int64(begin); at < end; at += HashBuffer {
		offset, n := p.next(at, end, prefetchAhead)
		if n == 0 {
			assert.Greater(t, min(asked, end)-at, int64(0), "what is read now was asked for")
			continue
		}
		assert.Equal(t, asked, offset)
		asked += n
		assert.LessOrEqual(t, asked, min(at+prefetchAhead, end))
		assert.True(t, n >= prefetchAhead/2 || asked == end, "%d bytes at %d", n, offset)
	}
	assert.Equal(t, int64(end), asked)
	_, n := p.next(end, end, prefetchAhead)
	assert.Zero(t, n)
}

// A part that comes later, as of a layer that is still fetched, is asked for then; what
// was skipped is not.
func TestPrefetchOfWhatGrows(t *testing.T) {
	var p Prefetch
	offset, n := p.next(0, 1000, prefetchAhead)
	assert.Equal(t, [2]int64{0, 1000}, [2]int64{offset, n})
	offset, n = p.next(1000, 3000, prefetchAhead)
	assert.Equal(t, [2]int64{1000, 2000}, [2]int64{offset, n})
	offset, n = p.next(100_000, 200_000, prefetchAhead)
	assert.Equal(t, [2]int64{100_000, 100_000}, [2]int64{offset, n})
}
