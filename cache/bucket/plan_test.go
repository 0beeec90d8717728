package bucket

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// requirePlan requires that the parts of a plan cover the tarball, within the limits, and that
// what no span copies is sent or read from where the span is.
func requirePlan(t *testing.T, p plan, size int64, spans []span, l limits) {
	t.Helper()
	require.NotEmpty(t, p.parts)
	require.LessOrEqual(t, len(p.parts), mostParts)
	at := int64(0)
	for i, part := range p.parts {
		require.Equal(t, at, part.from)
		require.Equal(t, int32(i+1), part.number)
		n := part.to - part.from
		if i < len(p.parts)-1 {
			require.GreaterOrEqual(t, n, l.least, "part %d of %d", i+1, len(p.parts))
		}
		if part.copied == nil {
			require.LessOrEqual(t, n, l.usual+l.least, "part %d", i+1)
		} else {
			require.LessOrEqual(t, n, int64(mostCopy))
			require.Equal(t, part.from, part.copied.From)
			require.Equal(t, part.to, part.copied.To)
		}
		at = part.to
	}
	require.Equal(t, size, at)
	for _, s := range spans { // each byte of a span is copied or in a head, once
		covered := int64(0)
		for _, part := range p.parts {
			if c := part.copied; c != nil && c.From >= s.From && c.To <= s.To {
				require.Equal(t, s.At+c.From-s.From, c.At)
				covered += c.To - c.From
			}
		}
		for _, h := range p.heads {
			if h.from >= s.From && h.to <= s.To {
				require.Equal(t, s.At+h.from-s.From, h.at)
				covered += h.to - h.from
			}
		}
		require.Equal(t, s.To-s.From, covered)
	}
}

func TestPlanWithoutSpans(t *testing.T) {
	for _, size := range []int64{1, 10_240, leastPart - 1, leastPart, leastPart + 1, usualPart, usualPart + 1, 2*leastPart - 1, 2 * leastPart, 16 * mib, gib, 40 * gib, 40_000_000_000, 200 * gib, 5 << 40} {
		l := defaultLimits(size)
		p, err := makePlan(size, nil, l)
		require.NoError(t, err)
		requirePlan(t, p, size, nil, l)
		assert.Empty(t, p.heads)
	}
	assert.EqualValues(t, usualPart, defaultLimits(40*gib).usual, "40 GB need no longer parts")
}

// A refresh of the last layer: one copy, after a head.
func TestPlanOfARefresh(t *testing.T) {
	size := int64(gib)
	spans := []span{{12 * 1024, size - 50*mib, origin{"other", "e"}, 12 * 1024}}
	l := defaultLimits(size)
	p, err := makePlan(size, spans, l)
	require.NoError(t, err)
	requirePlan(t, p, size, spans, l)
	sent := int64(0)
	for _, part := range p.parts {
		if part.copied == nil {
			sent += part.to - part.from
		}
	}
	assert.EqualValues(t, 50*mib+leastPart, sent)
	assert.Len(t, p.heads, 1)
}

func TestPlanOfAnySpans(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	l := limits{least: 50, usual: 80, copied: 500}
	for range 20_000 {
		size := 1 + r.Int64N(3000)
		var spans []span
		for at := int64(0); ; {
			from := at + r.Int64N(200)*r.Int64N(2)
			to := from + 1 + r.Int64N(300)
			if to > size {
				break
			}
			spans = append(spans, span{from, to, origin{"o", "e"}, r.Int64N(1000)})
			at = to
		}
		p, err := makePlan(size, spans, l)
		require.NoError(t, err)
		requirePlan(t, p, size, spans, l)
	}
}

func TestPlanOfTooManyParts(t *testing.T) {
	_, err := makePlan(10_001*usualPart, nil, limits{least: leastPart, usual: usualPart, copied: copyPart})
	require.ErrorContains(t, err, "more than 10000")
}
