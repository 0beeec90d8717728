package advise

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	mb = 1_000_000
	gb = 1000 * mb
)

// example are rates with which one can reckon in one's head.
func example() Rates {
	return Rates{
		Registry: &Registry{FirstByte: 0.1, Connection: 25 * mb, All: 100 * mb},
		Storage:  &Storage{Shared: true, ReadOne: 50 * mb, ReadMany: 150 * mb, Write: 80 * mb, Lock: 0.01, Rename: 0.02},
		Engine:   &Engine{Fixed: 0.5, Intake: 200 * mb, Unpack: 100 * mb, Find: 0.04},
		Root:     &Root{Mount: 0.06, Start: 0.6, Close: 2},
		CPUs:     2,
	}
}

// one layer of 1 GB; 90 jobs a day on 10 machines, and one build with 5 % new.
var (
	oneLayer = Image{Layers: []int64{gb}}
	fleet    = Fleet{JobsPerDay: 90, Machines: 10, BuildsPerDay: 1, New: 0.05}
)

func predict(t *testing.T, r Rates, i Image, f Fleet) map[string]Way {
	t.Helper()
	ways, err := Predict(r, i, f)
	require.NoError(t, err)
	byName := map[string]Way{}
	var names []string
	for _, w := range ways {
		byName[w.Name] = w
		names = append(names, w.Name)
	}
	assert.Equal(t, []string{Pull, LoadImage, ServeCache, KeepLoaded, EngineRoot, DockerLoad}, names)
	return byName
}

func assertCost(t *testing.T, want, got Cost, of string) {
	t.Helper()
	for _, c := range []struct {
		part      string
		want, got float64
	}{{"registry", want.Registry, got.Registry}, {"storage", want.Storage, got.Storage}, {"engine", want.Engine, got.Engine}, {"other", want.Other, got.Other}} {
		assert.InDelta(t, c.want, c.got, 1e-9, "%s, %s", of, c.part)
	}
}

// Each value was reckoned by hand, by the formulas of the package documentation.
func TestPredict(t *testing.T) {
	ways := predict(t, example(), oneLayer, fleet)
	for _, c := range []struct {
		name                 string
		cold, delta, present Cost
		once, background     float64
	}{
		{Pull,
			Cost{Registry: 0.8 + 0.1 + 40, Engine: 10 + 0.5 + 0.04}, Cost{Registry: 0.8 + 0.1 + 2, Engine: 0.5 + 0.5 + 0.04}, Cost{Registry: 0.7, Engine: 0.04}, 0, 0},
		{DockerLoad,
			Cost{Storage: 20, Engine: 10 + 0.5 + 0.04}, Cost{Storage: 20, Engine: 0.5 + 0.5 + 0.04}, Cost{Storage: 20, Engine: 0.5 + 0.04},
			0.4 + 12.5 + 0.03, 0.4 + 0.625 + 0.03 + 19},
		{LoadImage,
			Cost{Storage: 20, Engine: 10 + 0.5 + 0.04, Other: 0.01}, Cost{Storage: 1, Engine: 0.5 + 0.5 + 0.04, Other: 0.01}, Cost{Engine: 0.04},
			12.93, 20.055},
		{ServeCache,
			Cost{Storage: 20, Engine: 10 + 0.5 + 0.04}, Cost{Storage: 1, Engine: 0.5 + 0.5 + 0.04}, Cost{Engine: 0.04},
			12.93, 20.055},
		{KeepLoaded,
			Cost{Storage: 20, Engine: 10.54, Other: 0.01}, Cost{Storage: 1, Engine: 1.04, Other: 0.01}, Cost{Engine: 0.04},
			12.93 + 10*30.55, 20.055 + 10*2.05},
		{EngineRoot, // 2.5 GB are copied at 50 MB/s
			Cost{Storage: 50, Engine: 0.64, Other: 0.06}, Cost{Storage: 50, Engine: 0.64, Other: 0.06}, Cost{Storage: 50, Engine: 0.64, Other: 0.06},
			12.93 + 0.6 + 30.55 + 2, 20.055 + 50.7 + 2.05 + 2},
	} {
		w := ways[c.name]
		assert.True(t, w.Possible, w.Why)
		assertCost(t, c.cold, w.Cold, c.name+" cold")
		assertCost(t, c.delta, w.Delta, c.name+" delta")
		assertCost(t, c.present, w.Present, c.name+" present")
		assert.InDelta(t, c.once, w.Once, 1e-9, c.name)
		assert.InDelta(t, c.background, w.Background, 1e-9, c.name)
	}

	// One of ten jobs of a machine is the first after a build.
	pull, load := ways[Pull], ways[LoadImage]
	assert.InDelta(t, 0.1*3.94+0.9*0.74, pull.Job.Total(), 1e-9)
	assert.InDelta(t, 0.1*2.05+0.9*0.04, load.Job.Total(), 1e-9)
	assert.InDelta(t, 90*0.1*50*mb, pull.RegistryBytes, 1)
	assert.InDelta(t, 50*mb, load.RegistryBytes, 1)
	assert.InDelta(t, 90*0.1*50*mb, load.StorageBytes, 1)
	assert.InDelta(t, 90*1*gb, ways[DockerLoad].StorageBytes, 1)
	assert.InDelta(t, 10*50*mb, ways[KeepLoaded].StorageBytes, 1)
	assert.InDelta(t, 90*2.5*gb+50*mb, ways[EngineRoot].StorageBytes, 1)
	late := 2.05 / 86400
	assert.InDelta(t, late*2.05+(1-late)*0.04, ways[KeepLoaded].Job.Total(), 1e-9)

	// 12.93 s are stocked once; a job saves 1.06-0.241 s, less its part of a day's 20.055 s.
	assert.EqualValues(t, math.Ceil(12.93/(1.06-0.241-20.055/90)), load.BreakEven)
	assert.EqualValues(t, Never, ways[DockerLoad].BreakEven)
	assert.Zero(t, pull.BreakEven)
	assert.InDelta(t, 12.93+100*(0.241+20.055/90), load.Seconds(100, fleet), 1e-9)
}

// To find a tarball is load-image's, also where the engine has the image; a job of keep-loaded's does not wait for it.
func TestPredictLook(t *testing.T) {
	r := example()
	before := predict(t, r, oneLayer, fleet)
	r.Storage.Look = 0.02
	after := predict(t, r, oneLayer, fleet)
	for name, more := range map[string]struct{ cold, present float64 }{
		Pull: {}, DockerLoad: {}, ServeCache: {}, EngineRoot: {}, LoadImage: {0.02, 0.02}, KeepLoaded: {0.02, 0},
	} {
		cold, delta, present := before[name].Cold, before[name].Delta, before[name].Present
		cold.Other, delta.Other, present.Other = cold.Other+more.cold, delta.Other+more.cold, present.Other+more.present
		assertCost(t, cold, after[name].Cold, name)
		assertCost(t, delta, after[name].Delta, name)
		assertCost(t, present, after[name].Present, name)
	}
}

// The engine's own client takes longer to start than load-image.
func TestPredictClients(t *testing.T) {
	r := example()
	before := predict(t, r, oneLayer, fleet)
	r.Engine.Ask, r.Engine.PullPresent = 0.07, 0.02
	after := predict(t, r, oneLayer, fleet)
	for _, c := range []struct {
		name                 string
		cold, delta, present float64 // more than before
	}{
		{Pull, 0.03, 0.03, 0.05},
		{DockerLoad, 0.03, 0.03, 0.03},
		{LoadImage, 0, 0, 0},
		{ServeCache, 0.03, 0.03, 0.05},
		{KeepLoaded, 0, 0, 0.03},
		{EngineRoot, 0.03, 0.03, 0.03},
	} {
		was, is := before[c.name], after[c.name]
		for _, cost := range []struct{ want, was, is Cost }{{Cost{Engine: c.cold}, was.Cold, is.Cold}, {Cost{Engine: c.delta}, was.Delta, is.Delta}, {Cost{Engine: c.present}, was.Present, is.Present}} {
			cost.was.Engine += cost.want.Engine
			assertCost(t, cost.was, cost.is, c.name)
		}
	}
}

func TestPredictEphemeralEngines(t *testing.T) {
	f := fleet
	f.JobsPerEngine = 1
	ways := predict(t, example(), oneLayer, f)
	for _, name := range []string{Pull, DockerLoad, LoadImage, ServeCache} {
		assert.Equal(t, ways[name].Cold, ways[name].Job, name)
	}
	assert.False(t, ways[KeepLoaded].Possible)
	assert.Contains(t, ways[KeepLoaded].Why, "an engine lives for one job")
	f.JobsPerEngine = 4
	ways = predict(t, example(), oneLayer, f)
	assert.InDelta(t, 0.25*51.44+0.75*(0.1*3.94+0.9*0.74), ways[Pull].Job.Total(), 1e-9)
	assert.True(t, ways[KeepLoaded].Possible)
}

func TestPredictReflink(t *testing.T) {
	r := example()
	r.Storage.Reflink = true
	ways := predict(t, r, oneLayer, fleet)
	assertCost(t, Cost{Engine: 0.64, Other: 0.06}, ways[EngineRoot].Job, EngineRoot)
	assert.InDelta(t, 0.4+0.625+0.03, ways[LoadImage].Background, 1e-9)
	assert.InDelta(t, 50*mb, ways[EngineRoot].StorageBytes, 1)
}

func TestPredictEngineThatPulls(t *testing.T) {
	r := example()
	r.Engine.Pulls = true
	// Three layers at a time, each at 50 MB/s: 8 s. The first two are unpacked when the third has come.
	ways := predict(t, r, Image{Layers: []int64{100 * mb, 100 * mb, 400 * mb}}, fleet)
	assertCost(t, Cost{Storage: 8 - 2, Engine: 2 + 4 + 0.5 + 0.04, Other: 0.01}, ways[LoadImage].Cold, LoadImage)
	// An archive is taken whole before.
	assertCost(t, Cost{Storage: 12, Engine: 6 + 0.5 + 0.04}, ways[DockerLoad].Cold, DockerLoad)
}

// An engine that is sent archives pulls at rates of its own, from a registry and from serve-cache.
func TestPredictPulling(t *testing.T) {
	r := example()
	r.Engine.Pulling = &Pulling{Fixed: 0.2, Intake: 20 * mb, Unpack: 200 * mb}
	ways := predict(t, r, oneLayer, fleet)
	assertCost(t, Cost{Registry: 0.9 + 50, Engine: 0.04 + 5 + 0.2}, ways[Pull].Cold, Pull)
	assertCost(t, Cost{Storage: 50, Engine: 0.04 + 5 + 0.2}, ways[ServeCache].Cold, ServeCache)
	assertCost(t, Cost{Storage: 20, Engine: 0.04 + 10 + 0.5, Other: 0.01}, ways[LoadImage].Cold, LoadImage)
	r.Engine.Pulling.Unpack = 0
	_, err := Predict(r, oneLayer, fleet)
	assert.ErrorContains(t, err, "Rates.Engine.Pulling.Unpack is 0")
}

func TestPredictBucket(t *testing.T) {
	r := example()
	r.Storage.Bucket, r.Storage.Shared = true, false
	ways := predict(t, r, oneLayer, fleet)
	assert.InDelta(t, gb/(150.*mb), ways[LoadImage].Cold.Storage, 1e-9, "several connections")
	assert.InDelta(t, 20, ways[DockerLoad].Cold.Storage, 1e-9, "one connection")
	assert.InDelta(t, 0.4+0.625+0.03, ways[LoadImage].Background, 1e-9, "its server copies; all machines share it")
	assert.False(t, ways[EngineRoot].Possible)
	assert.Contains(t, ways[EngineRoot].Why, "bucket")
}

func TestPredictDirectoryOfEachMachine(t *testing.T) {
	r := example()
	r.Storage.Shared = false
	w := predict(t, r, oneLayer, fleet)[LoadImage]
	assert.InDelta(t, 10*12.93, w.Once, 1e-9)
	assert.InDelta(t, 10*20.055, w.Background, 1e-9)
	assert.InDelta(t, 10*50*mb, w.RegistryBytes, 1)
}

// The registry gives 60 MB/s: 20 to each of three layers of 25 MB, so 13 times three of them take
// 1.25 s each, and the last one 1 s alone, then 0.25 s to be unpacked.
func TestPullManyLayers(t *testing.T) {
	layers := slices.Repeat([]int64{25 * mb}, 40)
	total, unpacking := pulled(layers, link{0, 25 * mb, 60 * mb}, 100*mb)
	assert.InDelta(t, 13*1.25+1+0.25, total, 1e-9)
	assert.InDelta(t, 10, unpacking, 1e-9)
	// Unpacking is slower: it begins when the first has come, and goes on to the end.
	total, _ = pulled(layers, link{0, 25 * mb, 60 * mb}, 10*mb)
	assert.InDelta(t, 1.25+100, total, 1e-9)
}

func TestPullWaitsForFirstBytes(t *testing.T) {
	// While two of three wait, the one that gets bytes has all the rate.
	l := link{1, 10 * mb, 10 * mb}
	assert.InDeltaSlice(t, []float64{1 + 3, 1 + 3, 1 + 3, 4 + 1 + 1}, l.arrivals([]int64{10 * mb, 10 * mb, 10 * mb, 10 * mb}), 1e-9)
	assert.InDeltaSlice(t, []float64{1, 1, 1, 2}, l.arrivals([]int64{0, 0, 0, 0}), 1e-9)
	assert.Empty(t, l.arrivals(nil))
}

func TestPredictEmptyImage(t *testing.T) {
	f := fleet
	f.JobsPerEngine = 1
	ways := predict(t, example(), Image{}, f)
	assertCost(t, Cost{Registry: 0.8, Engine: 0.54}, ways[Pull].Job, Pull)
	assertCost(t, Cost{Engine: 0.54, Other: 0.01}, ways[LoadImage].Job, LoadImage)
}

func TestPredictOneJobADay(t *testing.T) {
	f := Fleet{JobsPerDay: 1, BuildsPerDay: 9, New: 1}
	w := predict(t, example(), oneLayer, f)
	assert.InDelta(t, 0.9*51.44+0.1*0.74, w[Pull].Job.Total(), 1e-9)
	// Nine builds are stocked for one job: never.
	assert.EqualValues(t, Never, w[LoadImage].BreakEven)
}

func TestPredictSaysWhatIsMissing(t *testing.T) {
	r := example()
	r.Engine = nil
	for name, w := range predict(t, r, oneLayer, fleet) {
		assert.False(t, w.Possible, name)
		assert.Contains(t, w.Why, "engine", name)
	}
	r = example()
	r.Storage, r.Root = nil, nil
	ways := predict(t, r, oneLayer, fleet)
	assert.True(t, ways[Pull].Possible)
	assert.Equal(t, "not measured: storage", ways[LoadImage].Why)
	assert.Equal(t, "not measured: storage, clones of data roots", ways[EngineRoot].Why)
}

func TestPredictMoreThanADay(t *testing.T) {
	f := Fleet{JobsPerDay: 20_000, New: 0.05, JobsPerEngine: 1}
	ways := predict(t, example(), oneLayer, f)
	// 20 TB a day; the registry gives 8.64, the storage 12.96.
	assert.Equal(t, "it moves 20 TB a day, and the registry gives 8.6 TB a day at most", ways[Pull].Why)
	assert.False(t, ways[Pull].Possible)
	assert.Equal(t, "it moves 20 TB a day, and the storage gives 13 TB a day at most", ways[LoadImage].Why)
}

func TestPredictRefuses(t *testing.T) {
	set := func(change func(r *Rates, i *Image, f *Fleet)) error {
		r, i, f := example(), oneLayer, fleet
		change(&r, &i, &f)
		ways, err := Predict(r, i, f)
		assert.Nil(t, ways)
		return err
	}
	const rate, secs = "it must be a positive, finite number of bytes per second", "it must be a finite number of seconds, 0 or more"
	require.EqualError(t, set(func(r *Rates, _ *Image, _ *Fleet) { r.Storage.ReadOne = 0 }), "advise: Rates.Storage.ReadOne is 0: "+rate)
	require.EqualError(t, set(func(r *Rates, _ *Image, _ *Fleet) { r.Registry.All = math.Inf(1) }), "advise: Rates.Registry.All is +Inf: "+rate)
	require.EqualError(t, set(func(r *Rates, _ *Image, _ *Fleet) { r.Root.Start = math.NaN() }), "advise: Rates.Root.Start is NaN: "+secs)
	require.EqualError(t, set(func(_ *Rates, i *Image, _ *Fleet) { i.Layers = []int64{1, -1} }), "advise: Image.Layers[1] is -1: it must be a size in bytes")
	require.EqualError(t, set(func(_ *Rates, _ *Image, f *Fleet) { f.JobsPerDay = 0 }), "advise: Fleet.JobsPerDay is 0: it must be a positive, finite number")
	for _, bad := range []float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1)} {
		for _, change := range []func(r *Rates){
			func(r *Rates) { r.Storage.ReadOne = bad }, func(r *Rates) { r.Storage.ReadMany = bad }, func(r *Rates) { r.Storage.Write = bad },
			func(r *Rates) { r.Registry.Connection = bad }, func(r *Rates) { r.Registry.All = bad },
			func(r *Rates) { r.Engine.Intake = bad }, func(r *Rates) { r.Engine.Unpack = bad },
		} {
			require.ErrorContains(t, set(func(r *Rates, _ *Image, _ *Fleet) { change(r) }), rate)
		}
		if bad == 0 {
			continue
		}
		for _, change := range []func(r *Rates){
			func(r *Rates) { r.Storage.Lock = bad }, func(r *Rates) { r.Storage.Rename = bad }, func(r *Rates) { r.Registry.FirstByte = bad },
			func(r *Rates) { r.Engine.Fixed = bad }, func(r *Rates) { r.Storage.Look = bad }, func(r *Rates) { r.Engine.Find = bad }, func(r *Rates) { r.Engine.Ask = bad }, func(r *Rates) { r.Engine.PullPresent = bad },
			func(r *Rates) { r.Root.Mount = bad }, func(r *Rates) { r.Root.Start = bad }, func(r *Rates) { r.Root.Close = bad },
		} {
			require.ErrorContains(t, set(func(r *Rates, _ *Image, _ *Fleet) { change(r) }), secs)
		}
		require.Error(t, set(func(_ *Rates, _ *Image, f *Fleet) { f.JobsPerDay = bad }))
		require.Error(t, set(func(_ *Rates, _ *Image, f *Fleet) { f.BuildsPerDay = bad }))
		require.Error(t, set(func(_ *Rates, _ *Image, f *Fleet) { f.JobsPerEngine = bad }))
		require.Error(t, set(func(_ *Rates, _ *Image, f *Fleet) { f.New = 2 * bad }))
	}
	require.Error(t, set(func(_ *Rates, _ *Image, f *Fleet) { f.Machines = -1 }))
	require.Error(t, set(func(_ *Rates, i *Image, _ *Fleet) { i.Unpacked = -1 }))
	require.Error(t, set(func(_ *Rates, i *Image, _ *Fleet) { i.Layers = []int64{math.MaxInt64, 1} }))
	require.Error(t, set(func(r *Rates, _ *Image, _ *Fleet) { r.CPUs = -1 }))
}

// Whatever the image and the fleet are: all numbers are finite, and what gets faster makes no way
// slower that uses it, and changes none that does not.
func TestPredictIsMonotonic(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	between := func(low, high float64) float64 { return low * math.Pow(high/low, random.Float64()) }
	for range 3000 {
		r := Rates{
			Registry: &Registry{random.Float64(), between(mb, gb), between(mb, gb)},
			Storage:  &Storage{random.IntN(4) == 0, random.IntN(2) == 0, between(mb, gb), between(mb, gb), between(mb, gb), random.IntN(2) == 0, random.Float64(), random.Float64(), random.Float64()},
			Engine:   &Engine{random.Float64(), between(mb, gb), between(mb, gb), random.IntN(2) == 0, random.Float64(), random.Float64(), random.Float64(), nil},
			Root:     &Root{random.Float64(), random.Float64(), random.Float64()},
		}
		var i Image
		for range random.IntN(40) {
			i.Layers = append(i.Layers, int64(between(1, 4*gb)))
		}
		f := Fleet{between(1, 1000), random.IntN(50), between(0.01, 100), random.Float64(), float64(random.IntN(5))}
		before := predict(t, r, i, f)
		for name, w := range before {
			for _, v := range []float64{w.Job.Total(), w.Cold.Total(), w.Delta.Total(), w.Present.Total(), w.Once, w.Background, w.RegistryBytes, w.StorageBytes} {
				require.True(t, isFinite(v) && v >= 0, "%s: %v", name, v)
			}
			for _, c := range []Cost{w.Cold, w.Delta, w.Present} {
				require.GreaterOrEqual(t, min(c.Registry, c.Storage, c.Engine, c.Other), -1e-6, name)
			}
		}
		for _, faster := range []struct {
			what    string
			change  func(r *Rates)
			applies func(name string) bool
		}{
			{"storage", func(r *Rates) { s := *r.Storage; s.ReadOne *= 1.5; s.ReadMany *= 1.5; s.Write *= 1.5; r.Storage = &s }, func(n string) bool { return n != Pull }},
			{"registry", func(r *Rates) { s := *r.Registry; s.Connection *= 1.5; s.All *= 1.5; r.Registry = &s }, func(n string) bool { return n == Pull }},
			{"unpacking", func(r *Rates) { s := *r.Engine; s.Unpack *= 1.5; r.Engine = &s }, func(n string) bool { return n != EngineRoot }},
		} {
			changed := r
			faster.change(&changed)
			for name, w := range predict(t, changed, i, f) {
				if !w.Possible || !before[name].Possible {
					continue
				}
				old, slack := before[name], 1+1e-9
				if name == Pull {
					// When small layers end sooner, others get their first byte sooner, and take a part
					// of the rate of the one that is waited for.
					slack = 1.01
				}
				for _, c := range [][2]float64{{w.Cold.Total(), old.Cold.Total()}, {w.Delta.Total(), old.Delta.Total()}, {w.Present.Total(), old.Present.Total()}, {w.Job.Total(), old.Job.Total()}} {
					require.LessOrEqual(t, c[0], c[1]*slack+1e-9, "%s is faster, and %s slower: %+v", faster.what, name, i)
					if !faster.applies(name) {
						require.InDelta(t, c[1], c[0], 1e-9, "%s is faster, and %s changes", faster.what, name)
					}
				}
			}
		}
	}
}

func TestPredictLargestImage(t *testing.T) {
	f := fleet
	f.New = 1
	for name, w := range predict(t, example(), Image{Layers: []int64{math.MaxInt64}}, f) {
		assert.True(t, isFinite(w.Job.Total()) && w.Job.Total() >= 0, name)
	}
}
