package measure

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/dockercache/dockercache/cache/advise"
)

const mb = 1_000_000

// 0.4 s of any load; 200 MB/s in, 100 MB/s unpacked.
func load(bytes int64) Load {
	s := float64(bytes) / mb
	return Load{bytes, time.Duration(s / 200 * 1e9), time.Duration((0.1 + s/100) * 1e9), 300 * time.Millisecond}
}

func TestBetween(t *testing.T) {
	cold := load(4 * mb)
	cold.Engine += time.Second // the first one makes the engine ready
	busy := load(100 * mb)
	busy.Stream += time.Second
	for n := 2; n <= 4; n++ {
		var e advise.Engine
		loads := []Load{cold, load(100 * mb), load(4 * mb), busy}[:n]
		if n == 2 {
			loads[0] = load(4 * mb)
		}
		between(&e, loads)
		assert.InEpsilon(t, 200*mb, e.Intake, 0.01)
		assert.InEpsilon(t, 100*mb, e.Unpack, 0.01)
		assert.InEpsilon(t, 0.4, e.Fixed, 0.01)
	}
}

// Noise may make the larger load the faster one: what all of it took counts, and no rate is negative.
func TestBetweenNoise(t *testing.T) {
	var e advise.Engine
	few := Load{4 * mb, time.Second, time.Second, time.Second}
	between(&e, []Load{few, {100 * mb, 500 * time.Millisecond, time.Second, 0}})
	assert.InDelta(t, 200*mb, e.Intake, 1)
	assert.InDelta(t, 100*mb, e.Unpack, 1)
	assert.InDelta(t, 3-0.06, e.Fixed, 1e-9)
	between(&e, []Load{{4 * mb, 0, 0, 0}, {4 * mb, 0, 0, 0}})
	assert.Positive(t, e.Intake)
	assert.NoError(t, advise.Rates{Engine: &e}.Check())
}
