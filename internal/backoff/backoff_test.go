package backoff_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/dockercache/dockercache/internal/backoff"
)

func TestDelay(t *testing.T) {
	for attempts, most := range map[int]time.Duration{
		-1: 0, 0: 0, 1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 4: 5 * time.Second, math.MaxInt: 5 * time.Second,
	} {
		assert.Equal(t, most, backoff.Double(time.Second, 5*time.Second, attempts), attempts)
		for range 100 {
			d := backoff.Delay(time.Second, 5*time.Second, attempts)
			assert.LessOrEqual(t, d, most, attempts)
			assert.GreaterOrEqual(t, d, most/2, attempts)
		}
	}
}
