package advise

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func recommend(t *testing.T, r Rates, i Image, f Fleet) Recommendation {
	t.Helper()
	ways, err := Predict(r, i, f)
	require.NoError(t, err)
	return Recommend(ways, nil)
}

// Shared storage of 20 MB/s, as in https://github.com/pytorch/pytorch/pull/170793, where caching
// was removed, and a registry that is faster.
func TestRecommendSlowStorage(t *testing.T) {
	r := example()
	r.Root = nil
	r.Storage.ReadOne, r.Storage.ReadMany, r.Storage.Write = 20*mb, 20*mb, 20*mb
	f := Fleet{JobsPerDay: 100, Machines: 50, BuildsPerDay: 2, New: 0.05, JobsPerEngine: 1}
	image := Image{Layers: []int64{5 * gb, 3 * gb, 2 * gb}}
	got := recommend(t, r, image, f)
	// A pull has the first layer after 200.5 s, and unpacks for 100. The storage gives all of it in 500 s.
	assert.Equal(t, Recommendation{Way: Pull, Reason: "Do not cache here: a plain pull takes 5m1s per job (3m20s of the registry), " +
		"the fastest way that caches, serve-cache, 10m0s (8m20s of the storage)."}, got)
	// It could not even read all that.
	f.JobsPerDay = 500
	got = recommend(t, r, image, f)
	assert.Equal(t, Pull, got.Way)
	assert.Contains(t, got.Reason, "10m0s (8m20s of the storage), and it moves 5.0 TB a day, and the storage gives 1.7 TB a day at most")
	f.JobsPerDay = 100
	// The same where the engines keep their images.
	f.JobsPerEngine = 0
	got = recommend(t, r, image, f)
	assert.Equal(t, Pull, got.Way, got.Reason)
	// A registry that is slower than the storage.
	r.Registry.Connection, r.Registry.All = 4*mb, 12*mb
	f.JobsPerEngine = 1
	got = recommend(t, r, image, f)
	assert.True(t, got.Cache, got.Reason)
}

func TestRecommend(t *testing.T) {
	ephemeral := fleet
	ephemeral.JobsPerEngine = 1
	got := recommend(t, example(), oneLayer, ephemeral)
	assert.Equal(t, LoadImage, got.Way)
	assert.InDelta(t, 51.44-30.55, got.Saved, 1e-9)
	assert.Equal(t, "Use load-image: a job waits 30.6 s, and 51.4 s with a plain pull (40.9 s of the registry). It breaks even after the first job.", got.Reason)

	r := example()
	r.Storage.Reflink = true
	got = recommend(t, r, oneLayer, ephemeral)
	assert.Equal(t, EngineRoot, got.Way, got.Reason)

	// Engines that keep the image: a pull costs seven round trips.
	r = example()
	r.Registry.FirstByte = 0.05
	got = recommend(t, r, oneLayer, fleet)
	assert.Equal(t, Recommendation{Way: Pull, Reason: "Do not cache here: a plain pull takes 0.7 s per job (0.56 s of the registry), " +
		"the fastest way that caches, keep-loaded, 0.04 s (0.04 s of the engine); that saves 0.66 s, and to be worth it, it would have to be 10 % and 1 s."}, got)
}

// Nine builds a day are stocked for one job.
func TestRecommendTooFewJobs(t *testing.T) {
	got := recommend(t, example(), oneLayer, Fleet{JobsPerDay: 1, BuildsPerDay: 9, New: 1})
	assert.Equal(t, Pull, got.Way)
	assert.Contains(t, got.Reason, "Do not cache here")
	assert.Contains(t, got.Reason, "more than jobs save")
}

func way(name string, seconds float64) Way {
	return Way{Name: name, Possible: true, Job: Cost{Engine: seconds}, BreakEven: map[bool]int64{true: 0, false: 5}[name == Pull]}
}

func TestRecommendThresholds(t *testing.T) {
	for _, c := range []struct {
		pull, load, root float64
		t                *Thresholds
		want             string
	}{
		{100, 91, 91, nil, Pull},                 // 9 %
		{100, 89, 89, nil, LoadImage},            // and the simpler one of two
		{100, 89, 80, nil, EngineRoot},           // 10 % less than load-image
		{100, 89, 81, nil, LoadImage},            // 9 % less
		{1.5, 0.6, 0.6, nil, Pull},               // 0.9 s
		{1.7, 0.6, 0.6, nil, LoadImage},          // 1.1 s
		{1, 0.9, 0.8, &Thresholds{}, EngineRoot}, // the fastest
		{1, 1, 1, &Thresholds{}, Pull},
		{50, 60, 70, nil, Pull},
		{100, 80, 10, &Thresholds{0.5, 30}, EngineRoot},
		{100, 80, 60, &Thresholds{0.5, 30}, Pull},
	} {
		ways := []Way{way(Pull, c.pull), way(LoadImage, c.load), way(EngineRoot, c.root)}
		got := Recommend(ways, c.t)
		assert.Equal(t, c.want, got.Way, "%+v: %s", c, got.Reason)
		assert.Equal(t, c.want != Pull, got.Cache)
	}
	got := Recommend([]Way{way(Pull, 100), way(LoadImage, 95)}, nil)
	assert.Equal(t, "Do not cache here: a plain pull takes 1m40s per job (1m40s of the engine), the fastest way that caches, load-image, "+
		"95 s (95 s of the engine); that saves 5 s, and to be worth it, it would have to be 10 % and 1 s.", got.Reason)
}

// What does not break even, or is not possible, is not recommended.
func TestRecommendLeavesOut(t *testing.T) {
	never, impossible := way(LoadImage, 1), way(EngineRoot, 1)
	never.BreakEven, impossible.Possible, impossible.Why = Never, false, "not measured: engine"
	got := Recommend([]Way{way(Pull, 100), never, impossible}, nil)
	assert.Equal(t, Pull, got.Way)
	got = Recommend([]Way{way(Pull, 100), impossible}, nil)
	assert.Equal(t, Recommendation{Way: Pull, Reason: "Nothing else can be recommended than plain pulls, which take 1m40s per job: engine-root: not measured: engine."}, got)
	got = Recommend([]Way{impossible}, nil)
	assert.Equal(t, Recommendation{Reason: "Nothing can be recommended: engine-root: not measured: engine."}, got)
	got = Recommend(nil, nil)
	assert.Empty(t, got.Way)

	pull, load := way(Pull, 1), way(LoadImage, 5)
	pull.Possible, pull.Why, load.BreakEven = false, "not measured: registry", 0
	got = Recommend([]Way{pull, load}, nil)
	assert.Equal(t, Recommendation{Way: LoadImage, Cache: true, Reason: "Use load-image: a job waits 5 s, fewer than by any other way that was measured. Plain pulls: not measured: registry."}, got)
}
