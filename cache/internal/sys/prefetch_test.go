package sys

import (
	"io"
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

// asked is a [Prefetcher] that records what it is asked for.
type asked struct {
	io.ReaderAt
	ahead  int64
	ranges []Range
}

func (a *asked) Ahead() int64             { return a.ahead }
func (a *asked) WillNeed(offset, n int64) { a.ranges = append(a.ranges, Range{offset, n}) }

// What follows is asked for across the ends of ranges, each byte once, and nothing between.
func TestPrefetchOfRanges(t *testing.T) {
	ranges := []Range{{1000, 30}, {5000, 0}, {2000, 5}, {3000, 100}}
	a := &asked{ahead: 40}
	var p Prefetch
	p.KeepRanges(a, 0, ranges)
	assert.Equal(t, []Range{{1000, 30}, {2000, 5}, {3000, 5}}, a.ranges)
	p.KeepRanges(a, 19, ranges) // more than half of it is ahead
	assert.Len(t, a.ranges, 3)
	for done := int64(20); done <= 135; done++ {
		p.KeepRanges(a, done, ranges)
	}
	next := int64(3005)
	for _, r := range a.ranges[3:] {
		assert.Equal(t, next, r.Offset)
		next += r.Length
	}
	assert.EqualValues(t, 3100, next)
}
