package advise

import (
	"fmt"
	"math"
	"strings"

	"github.com/dustin/go-humanize"
)

// The names of the ways.
const (
	Pull       = "pull"        // the engine pulls from the registry
	LoadImage  = "load-image"  // a tarball is stocked; load-image sends what the engine lacks
	ServeCache = "serve-cache" // a tarball is stocked; the engine pulls from serve-cache
	KeepLoaded = "keep-loaded" // a tarball is stocked; keep-loaded loads it before jobs come
	EngineRoot = "engine-root" // the image is in a template; each job's engine gets a clone
	DockerLoad = "docker-load" // a tarball is stocked; docker load sends all of it
)

// A Cost is seconds, by what is waited for.
type Cost struct {
	Registry float64 `json:"registry"`
	Storage  float64 `json:"storage"`
	Engine   float64 `json:"engine"`
	// Other is to find a tarball, to lock, to clone, to mount.
	Other float64 `json:"other"`
}

// Total returns all seconds.
func (c Cost) Total() float64 { return c.Registry + c.Storage + c.Engine + c.Other }

func (c Cost) plus(o Cost) Cost {
	return Cost{c.Registry + o.Registry, c.Storage + o.Storage, c.Engine + o.Engine, c.Other + o.Other}
}

func (c Cost) times(n float64) Cost {
	return Cost{n * c.Registry, n * c.Storage, n * c.Engine, n * c.Other}
}

// A Way is one in which jobs get the image.
type Way struct {
	Name string `json:"name"`
	// Possible is whether it can be predicted, and done; if not, Why says why not, and of the other
	// fields some may be 0.
	Possible bool   `json:"possible"`
	Why      string `json:"why,omitempty"`
	// Cold, Delta and Present are of a job whose engine has nothing, the build before, the image.
	Cold    Cost `json:"cold"`
	Delta   Cost `json:"delta"`
	Present Cost `json:"present"`
	// Job is the mean of the fleet's jobs.
	Job Cost `json:"job"`
	// Once is what has to be done before the first job, in seconds: to stock, to make templates.
	Once float64 `json:"onceSeconds"`
	// Background is the same for each day's builds, and what is loaded ahead of jobs.
	Background float64 `json:"backgroundSecondsPerDay"`
	// RegistryBytes and StorageBytes are how many the registry and the storage give in a day.
	RegistryBytes float64 `json:"registryBytesPerDay"`
	StorageBytes  float64 `json:"storageBytesPerDay"`
	// BreakEven is after how many jobs it has taken fewer seconds than plain pulls, all of them
	// counted; [Never], or 0 for plain pulls, and where they are not known.
	BreakEven int64 `json:"breakEvenJobs"`
}

// Never is [Way.BreakEven] of a way that takes more seconds than plain pulls however many jobs
// there are.
const Never = -1

// Seconds returns how many seconds the fleet's machines have spent when so many jobs have got the
// image.
func (w *Way) Seconds(jobs float64, f Fleet) float64 { return w.Once + jobs*w.perJob(f) }

func (w *Way) perJob(f Fleet) float64 { return w.Job.Total() + w.Background/f.JobsPerDay }

const day = 24 * 60 * 60

// Predict returns what each way costs, the simplest way first: the fewer programs it needs, the
// simpler it is. The formulas are in the package documentation. The error is that of r.Check,
// i.Check and f.Check.
func Predict(r Rates, i Image, f Fleet) ([]Way, error) {
	if err := first(r.Check(), i.Check(), f.Check()); err != nil {
		return nil, err
	}
	p := newPrediction(r, i, f)
	ways := []Way{p.pull(), p.loadImage(), p.serveCache(), p.keepLoaded(), p.engineRoot(), p.dockerLoad()}
	pull := &ways[0]
	for n := range ways {
		w := &ways[n]
		p.checkDay(w)
		if n > 0 && w.Possible && pull.Possible {
			w.BreakEven = breakEven(w, pull, f)
		}
	}
	return ways, nil
}

func breakEven(w, pull *Way, f Fleet) int64 {
	saved := pull.perJob(f) - w.perJob(f)
	if saved <= 0 {
		return Never
	}
	// More jobs than that are none that anybody has: what is saved is an error of rounding.
	if jobs := math.Ceil(w.Once / saved); jobs < 1<<53 {
		return max(int64(jobs), 1)
	}
	return Never
}

// A prediction is of one image and fleet.
type prediction struct {
	Rates
	image Image
	fleet Fleet
	all   []int64 // sizes of layers
	delta []int64
	// The shares of jobs.
	cold, second, present float64
}

func newPrediction(r Rates, i Image, f Fleet) *prediction {
	p := &prediction{Rates: r, image: i, fleet: f, all: i.Layers}
	added := i.Size()
	if f.New < 1 { // else a size of 2^63-1 is rounded up to what is no int64
		added = int64(f.New * float64(added))
	}
	p.delta = []int64{added}
	if f.JobsPerEngine > 0 {
		p.cold = 1 / f.JobsPerEngine
	}
	perMachine := f.JobsPerDay / f.machines()
	p.second = (1 - p.cold) * f.BuildsPerDay / (f.BuildsPerDay + perMachine)
	p.present = 1 - p.cold - p.second
	return p
}

func (p *prediction) mean(w *Way) {
	w.Job = w.Cold.times(p.cold).plus(w.Delta.times(p.second)).plus(w.Present.times(p.present))
}

// way returns a way, and whether what it needs was measured.
func (p *prediction) way(name string, needs ...string) (Way, bool) {
	var missing []string
	for _, n := range needs {
		if map[string]bool{"registry": p.Registry == nil, "storage": p.Storage == nil, "engine": p.Engine == nil, "clones of data roots": p.Root == nil}[n] {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		return Way{Name: name, Why: "not measured: " + strings.Join(missing, ", ")}, false
	}
	return Way{Name: name, Possible: true}, true
}

// The round trips before the first layer. A pull makes connections to the registry and to what gives
// tokens, two each with TLS, and asks whether a login is needed, for the token, the manifest, and the config:
// with Docker 20.10 seven were measured for an image that is there. To stock an image they are counted
// without connections, beside what all layers take.
const (
	pullPresent = 7
	pullAsks    = 8
	stockAsks   = 4
)

func (p *prediction) pull() Way {
	w, ok := p.way(Pull, "registry", "engine")
	if !ok {
		return w
	}
	r, e := p.Registry, p.Engine.pulling()
	pull := func(layers []int64) Cost {
		total, unpacking := pulled(layers, link{r.FirstByte, r.Connection, min(r.All, e.Intake)}, e.Unpack)
		return Cost{Registry: pullAsks*r.FirstByte + total - unpacking, Engine: p.Engine.client() + unpacking + e.Fixed}
	}
	w.Cold, w.Delta, w.Present = pull(p.all), pull(p.delta), p.pulledAgain(r.FirstByte)
	p.mean(&w)
	w.RegistryBytes = p.fleet.JobsPerDay * p.bytesPerJob()
	return w
}

// pulledAgain is the cost of a pull of what the engine has, by the time to a registry's first byte.
func (p *prediction) pulledAgain(firstByte float64) Cost {
	return Cost{Registry: pullPresent * firstByte, Engine: p.Engine.client() + p.Engine.PullPresent}
}

// bytesPerJob is how many an engine lacks, in the mean.
func (p *prediction) bytesPerJob() float64 {
	return p.cold*float64(p.image.Size()) + p.second*float64(p.delta[0])
}

// archive is the cost of sending an archive of sent bytes, of which the engine unpacks some, by a client
// that takes asks seconds to start and to ask.
func (p *prediction) archive(asks, rate float64, sent, unpacked int64) Cost {
	c := Cost{Engine: asks + float64(unpacked)/p.Engine.Unpack + p.Engine.Fixed}
	if rate < p.Engine.Intake {
		c.Storage = float64(sent) / rate
	} else {
		c.Engine += float64(sent) / p.Engine.Intake
	}
	return c
}

// mirror is the cost of pulling layers that are read from the storage, by a client that takes asks seconds.
func (p *prediction) mirror(asks float64, layers []int64) Cost {
	s, e := p.Storage, p.Engine.pulling()
	total, unpacking := pulled(layers, link{0, min(s.ReadOne, e.Intake), min(max(s.ReadOne, s.ReadMany), e.Intake)}, e.Unpack)
	return Cost{Storage: total - unpacking, Engine: asks + unpacking + e.Fixed}
}

func (p *prediction) dockerLoad() Way {
	w, ok := p.stockedWay(DockerLoad, "engine")
	if !ok {
		return w
	}
	size := p.image.Size()
	load := func(unpacked int64) Cost { return p.archive(p.Engine.client(), p.Storage.ReadOne, size, unpacked) }
	w.Cold, w.Delta, w.Present = load(size), load(p.delta[0]), load(0)
	p.mean(&w)
	w.StorageBytes += p.fleet.JobsPerDay * float64(size)
	return w
}

// loaded is what load-image takes for layers.
func (p *prediction) loaded(layers []int64) Cost {
	c := Cost{Other: p.Storage.Look + p.Storage.Lock}
	if p.Engine.Pulls {
		return c.plus(p.mirror(p.Engine.Find, layers))
	}
	rate, size := p.Storage.ReadOne, Image{Layers: layers}.Size()
	if p.Storage.Bucket {
		rate = max(rate, p.Storage.ReadMany)
	}
	return c.plus(p.archive(p.Engine.Find, rate, size, size))
}

func (p *prediction) loadImage() Way {
	return p.onDemand(LoadImage, p.loaded, func() Cost { return Cost{Engine: p.Engine.Find, Other: p.Storage.Look} })
}

func (p *prediction) serveCache() Way {
	return p.onDemand(ServeCache, func(layers []int64) Cost { return p.mirror(p.Engine.client(), layers) }, func() Cost { return p.pulledAgain(0) })
}

// onDemand is a way that gives an engine the layers that it lacks when a job asks.
func (p *prediction) onDemand(name string, cost func(layers []int64) Cost, present func() Cost) Way {
	w, ok := p.stockedWay(name, "engine")
	if !ok {
		return w
	}
	w.Cold, w.Delta, w.Present = cost(p.all), cost(p.delta), present()
	p.mean(&w)
	w.StorageBytes += p.fleet.JobsPerDay * p.bytesPerJob()
	return w
}

func (p *prediction) keepLoaded() Way {
	w, ok := p.stockedWay(KeepLoaded, "engine")
	if !ok {
		return w
	}
	if p.cold == 1 {
		return Way{Name: KeepLoaded, Why: "an engine lives for one job: there is nothing to load ahead of it into"}
	}
	w.Cold, w.Delta, w.Present = p.loaded(p.all), p.loaded(p.delta), Cost{Engine: p.Engine.client()}
	late := (1 - p.cold) * min(1, p.fleet.BuildsPerDay*w.Delta.Total()/day)
	w.Job = w.Cold.times(p.cold).plus(w.Delta.times(late)).plus(w.Present.times(1 - p.cold - late))
	machines := p.fleet.machines()
	w.Once += machines * w.Cold.Total()
	w.Background += machines * p.fleet.BuildsPerDay * w.Delta.Total()
	w.StorageBytes += machines*p.fleet.BuildsPerDay*float64(p.delta[0]) + p.fleet.JobsPerDay*p.cold*float64(p.image.Size())
	return w
}

func (p *prediction) engineRoot() Way {
	w, ok := p.stockedWay(EngineRoot, "engine", "clones of data roots")
	if !ok {
		return w
	}
	if p.Storage.Bucket {
		return Way{Name: EngineRoot, Why: "a template needs a directory, and this is a bucket"}
	}
	c := Cost{Engine: p.Root.Start + p.Engine.client(), Other: p.Root.Mount}
	if !p.Storage.Reflink {
		c.Storage = p.image.unpacked() / min(p.Storage.ReadOne, p.Storage.Write)
		w.StorageBytes += p.fleet.JobsPerDay * p.image.unpacked()
	}
	w.Cold, w.Delta, w.Present, w.Job = c, c, c, c
	stores := p.stores()
	w.Once += stores * (p.Root.Start + p.loaded(p.all).Total() + p.Root.Close)
	w.Background += stores * p.fleet.BuildsPerDay * (c.Total() + p.loaded(p.delta).Total() + p.Root.Close)
	w.StorageBytes += stores * p.fleet.BuildsPerDay * float64(p.delta[0])
	return w
}

// stores is how many directories there are to stock.
func (p *prediction) stores() float64 {
	if p.Storage.Shared || p.Storage.Bucket {
		return 1
	}
	return p.fleet.machines()
}

// stockedWay returns a way that needs the storage, the registry to stock it from, and more, with
// what stocking takes.
func (p *prediction) stockedWay(name string, needs ...string) (Way, bool) {
	w, ok := p.way(name, append([]string{"registry", "storage"}, needs...)...)
	if !ok {
		return w, false
	}
	stores, size, added := p.stores(), float64(p.image.Size()), float64(p.delta[0])
	w.Once = stores * p.stock(size, 0)
	w.Background = stores * p.fleet.BuildsPerDay * p.stock(added, max(size-added, 0))
	w.RegistryBytes = stores * p.fleet.BuildsPerDay * added
	return w, true
}

// stock is how long it takes to stock an image of which some bytes are fetched, and others are
// shared with one that is stocked.
func (p *prediction) stock(fetched, shared float64) float64 {
	s := p.Storage
	takes := stockAsks*p.Registry.FirstByte + fetched/min(p.Registry.All, s.Write) + s.Lock + s.Rename
	if !s.Reflink && !s.Bucket {
		takes += shared / min(s.ReadOne, s.Write)
	}
	return takes
}

// checkDay finds out that a source cannot give in a day what a way moves in one.
func (p *prediction) checkDay(w *Way) {
	if !w.Possible {
		return
	}
	check := func(moves, rate float64, who string) {
		if most := rate * day; moves > most && w.Possible {
			w.Possible, w.Why = false, fmt.Sprintf("it moves %s a day, and the %s gives %s a day at most", bytes(moves), who, bytes(most))
		}
	}
	if p.Registry != nil {
		check(w.RegistryBytes, max(p.Registry.Connection, p.Registry.All), "registry")
	}
	if p.Storage != nil {
		check(w.StorageBytes, max(p.Storage.ReadOne, p.Storage.ReadMany)*p.stores(), "storage")
	}
}

// bytes prints a number of bytes for people.
func bytes(n float64) string {
	if n >= math.MaxInt64 {
		return fmt.Sprintf("%.3g B", n)
	}
	return humanize.Bytes(uint64(max(n, 0)))
}
