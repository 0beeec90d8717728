//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/dockercache/dockercache/cache/advise"
	rates "github.com/dockercache/dockercache/cache/advise/measure" // measure is another process here
	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
	clients "github.com/dockercache/dockercache/registry" // registry is the one that is served here
)

// WayRates are what package measure has measured of an image, as for cache-admin advise: it knows no
// limit that is set here.
type wayRates struct {
	image      advise.Image
	engines    map[float64]*advise.Engine  // by the storage they were measured with; 0: with a registry
	registries map[string]*advise.Registry // by the name in wayLinks
	storages   map[float64]*advise.Storage // by the rate that is set, in MB/s
	roots      map[float64]*advise.Root
}

func newWayRates() *wayRates {
	return &wayRates{engines: map[float64]*advise.Engine{}, registries: map[string]*advise.Registry{}, storages: map[float64]*advise.Storage{}, roots: map[float64]*advise.Root{}}
}

// measureRegistry measures a registry, and the engine.
func (w *waysRun) measureRegistry(name string) {
	img, served := w.served(name)
	found, samples, err := rates.Registry(w.ctx, img, served, nil)
	check(err)
	w.rates.registries[name] = found
	w.report(samples, found)
	w.rates.image.Layers = nil
	for _, l := range img.Layers() {
		w.rates.image.Layers = append(w.rates.image.Layers, l.Size)
	}
	w.measureEngine(name, 0)
}

// served returns the image as a registry keeps it.
func (w *waysRun) served(name string) (*tarball.Image, tarball.Source) {
	ref := w.server.reference(name, wayTag)
	served := must(clients.New(&clients.Options{Keychain: authn.NewMultiKeychain()}).Image(w.ctx, clients.DefaultPlatform(), ref))
	return must(tarball.NewImage(ref, served.Manifest(), served.Config())), served
}

// measureEngine measures the engine, each time that anything else is measured: so the rates are of the
// same minute as what is predicted by them.
func (w *waysRun) measureEngine(registry string, storage float64) {
	open := func(ctx context.Context) (loader.Engine, error) {
		return loader.Open(ctx, must(loader.ParseHost(w.engine.socket)))
	}
	img, served := w.served(registry)
	w.settle()
	found, samples, err := rates.Engine(w.ctx, must(open(w.ctx)), img, served, &rates.EngineOptions{Open: open, Ask: func(_ context.Context, reference string) error {
		w.idOf(reference)
		return nil
	}, Start: func(ctx context.Context) error { return exec.CommandContext(ctx, w.loadImage, "-h").Run() }})
	check(err)
	w.rates.engines[storage] = found
	w.report(samples, found)
}

// measureStorage measures the storage at the rate, in MB/s, that is set.
func (w *waysRun) measureStorage(rate float64) {
	found, samples, err := rates.Directory(w.ctx, w.disk.Dir, &rates.DirectoryOptions{Existing: w.tarball()})
	check(err)
	w.rates.storages[rate] = found
	w.report(samples, found)
	w.rates.roots[rate], samples, err = rates.Root(w.ctx, w.disk.Dir, dataroot.Engine{Kind: dataroot.Docker})
	check(err)
	w.report(samples, w.rates.roots[rate])
	w.measureEngine(w.waysRegistries[0], rate)
	w.rated = append(w.rated, rate)
}

// report prints what rates were found, and by which samples.
func (w *waysRun) report(samples []rates.Sample, found any) {
	for _, s := range samples {
		fmt.Fprintf(os.Stderr, "%s: %.4g MiB, %.2f s %s\n", s.What, mib(s.Bytes), s.Took.Seconds(), s.Note)
	}
	fmt.Fprintf(os.Stderr, "%s\n", must(json.Marshal(found)))
}

// share is how much of the image is new in it.
func (w *waysRun) share() float64 {
	layers := w.rates.image.Layers
	return float64(layers[len(layers)-1]) / float64(w.rates.image.Size())
}

// near is how far a prediction may be from what was measured, and how much two ways may differ
// that count as equally fast: 20 %.
const near = 1.2

// A wayFleet is one that a way is recommended to.
type wayFleet struct {
	name   string
	fleet  advise.Fleet
	clones bool // engine-root can be used
}

// wayFleets have images of which a share is new in each build.
func wayFleets(share float64) []wayFleet {
	own := advise.Fleet{JobsPerDay: 100, BuildsPerDay: 1, New: share, JobsPerEngine: 1}
	stays := own
	stays.JobsPerEngine = 0
	return []wayFleet{
		{"each job has an engine of its own", own, true},
		{"the same without engine-root", own, false},
		{"the engine keeps its images, without engine-root", stays, false},
	}
}

// predict returns what is predicted of each way.
func (r *wayRates) predict(registry string, storage float64, f wayFleet) []advise.Way {
	rates := advise.Rates{Registry: r.registries[registry], Storage: r.storages[storage], Engine: r.engines[storage], Root: r.roots[storage]}
	if !f.clones {
		rates.Root = nil
	}
	return must(advise.Predict(rates, r.image, f.fleet))
}

func wayOf(ways []advise.Way, name string) advise.Way {
	return ways[slices.IndexFunc(ways, func(w advise.Way) bool { return w.Name == name })]
}

// predicted returns what is predicted of a cell, in seconds. Of one in which no registry takes part the
// first one's rates are used, which make no difference.
func (w *waysRun) predicted(c wayCell) float64 {
	f := wayFleets(w.share())[2] // in which all ways are possible but engine-root
	f.clones = true
	if c.registry == "" {
		c.registry = w.waysRegistries[0]
	}
	way := wayOf(w.rates.predict(c.registry, c.storage, f), c.way)
	return map[string]advise.Cost{cold: way.Cold, delta: way.Delta, present: way.Present}[c.finds].Total()
}

// real returns the seconds that a way took; false if it was not run.
func (w *waysRun) real(way, finds, registry string, storage float64) (float64, bool) {
	switch {
	case way == advise.EngineRoot: // whatever the engine of another job has
		finds = cold
	case way == advise.KeepLoaded && finds == cold: // it came with the job
		way = advise.LoadImage
	case way == advise.KeepLoaded: // what is new is loaded before a job comes
		finds = present
	}
	if way == advise.Pull {
		storage = 0
	} else {
		registry = ""
	}
	for _, c := range w.cells {
		if c.way == way && c.finds == finds && c.registry == registry && c.storage == storage {
			return c.real, true
		}
	}
	return 0, false
}

// realJob is the mean of a fleet's jobs, as [advise.Predict] computes it.
func (w *waysRun) realJob(way, registry string, storage float64, f advise.Fleet) (seconds float64, ok bool) {
	shares := map[string]float64{}
	if f.JobsPerEngine > 0 {
		shares[cold] = 1 / f.JobsPerEngine
	}
	shares[delta] = (1 - shares[cold]) * f.BuildsPerDay / (f.BuildsPerDay + f.JobsPerDay)
	shares[present] = 1 - shares[cold] - shares[delta]
	for finds, share := range shares {
		if share == 0 {
			continue
		}
		took, ok := w.real(way, finds, registry, storage)
		if !ok {
			return 0, false
		}
		seconds += share * took
	}
	return seconds, true
}

// A waysResult is what all sizes have shown.
type waysResult struct {
	cells, advice            *table
	all, near                int // cells
	seconds, nearSeconds     int // those of a second and more
	recommended, right, ties int
	almost                   int // of recommendations, a second
}

func newWaysResult() *waysResult {
	return &waysResult{
		cells: &table{title: "(p) Each way to give an engine an image: what cache-admin advise predicts, and what is so", text: 4,
			head: []string{"image, MiB", "way", "the engine has", "registry, storage", "predicted, s", "real, s", "predicted / real"}},
		advice: &table{title: "(p) What is recommended, and what really is fastest", text: 4,
			head: []string{"image, MiB", "fleet", "registry, storage", "recommended", "it takes, s", "the fastest", "it takes, s", ""}},
	}
}

// add adds what one size has shown.
func (t *waysResult) add(w *waysRun) {
	for _, c := range w.cells {
		ratio := c.predicted / c.real
		ok := ratio <= near && ratio >= 1/near
		t.all++
		if ok {
			t.near++
		}
		if c.real >= 1 {
			t.seconds++
			if ok {
				t.nearSeconds++
			}
		}
		t.cells.add(short(mib(w.size)), c.way, c.finds, c.source(), short(c.predicted), short(c.real), short(ratio))
	}
	for _, f := range wayFleets(w.share()) {
		for _, registry := range w.waysRegistries {
			for _, storage := range w.rated {
				t.addAdvice(w, f, registry, storage)
			}
		}
	}
}

func (t *waysResult) addAdvice(w *waysRun, f wayFleet, registry string, storage float64) {
	ways := w.rates.predict(registry, storage, f)
	got := advise.Recommend(ways, nil)
	fastest, least, most := "", 0.0, 0.0
	for _, way := range ways {
		took, ok := w.realJob(way.Name, registry, storage, f.fleet)
		if !way.Possible || !ok {
			continue
		}
		if fastest == "" || took < least {
			fastest, least = way.Name, took
		}
		most = max(most, took)
	}
	took, _ := w.realJob(got.Way, registry, storage, f.fleet)
	verdict := "right"
	t.recommended++
	switch {
	case most <= near*least:
		verdict = "no matter"
		t.ties++
	case got.Way == fastest:
		t.right++
	case took <= near*least:
		verdict = "within 20 %"
		t.right++
	case took < least+advise.DefaultThresholds.Seconds:
		verdict = "less than a second more" // for which nothing is recommended that is less simple
		t.almost++
	default:
		verdict = fmt.Sprintf("%.3g s more", took-least)
	}
	t.advice.add(short(mib(w.size)), f.name, wayCell{registry: registry, storage: storage}.source(), got.Way, short(took), fastest, short(least), verdict)
}

// count adds what was found in all to the last table.
func (t *waysResult) count(b *bench) {
	b.tables = append(b.tables, t.cells, t.advice)
	b.count("(p) predicted within 20 %", "%d of %d cells; of those that take a second or more %d of %d", t.near, t.all, t.nearSeconds, t.seconds)
	b.count("(p) recommended what is fastest, or within 20 % of it", "%d of %d, and less than a second slower in %d; in %d more all ways are within 20 %%", t.right, t.recommended-t.ties, t.almost, t.ties)
}
