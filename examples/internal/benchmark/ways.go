//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/internal/throttled"
)

// wayLinks are the registries that images are pulled from, by their names in -ways-registries.
var wayLinks = map[string]link{
	"each": {BytesPerSecond: connectionRate, Latency: latency},
	"all":  {TotalBytesPerSecond: connectionRate, Latency: latency},
}

// What the engine has when a job asks for an image.
const (
	cold    = "nothing"
	delta   = "the build before"
	present = "the image"
)

// A waysRun measures the ways in which an engine can get an image, each really, with a storage of a
// known rate and registries of known rates.
type waysRun struct {
	*bench
	ctx                               context.Context
	loadImage, engineRoot, serveCache string // programs
	disk                              *throttled.Disk
	engine                            *engine
	work                              string // a directory for engines, on the disk of $TMPDIR
	size                              int64  // of all layers
	layers                            []layer
	id                                string // of the image in an engine
	cells                             []*wayCell
	rates                             *wayRates
	rated                             []float64 // rates of the storage that were measured, in MB/s
}

// A wayCell is how long a way takes with a storage and a registry.
type wayCell struct {
	registry string  // name in wayLinks; "" if it takes no part
	storage  float64 // MB/s; 0 if it takes no part
	way      string
	finds    string // what the engine has

	predicted, real float64 // seconds
}

// source names the registry and the storage that take part.
func (c wayCell) source() string {
	var all []string
	if c.registry != "" {
		all = append(all, map[string]string{"each": "25 MB/s per connection", "all": "25 MB/s in all"}[c.registry])
	}
	if c.storage != 0 {
		all = append(all, fmt.Sprintf("%g MB/s", c.storage))
	}
	return strings.Join(all, ", ")
}

// measureWays measures each way.
func (b *bench) measureWays(ctx context.Context) {
	if !b.ways || b.engine == nil || os.Geteuid() != 0 {
		return
	}
	at := filepath.Join(b.scratch, "throttled")
	check(os.Mkdir(at, 0o755))
	disk, err := throttled.Mount(filepath.Join(b.scratch, "throttled.xfs"), at, 64<<30)
	if errors.Is(err, throttled.ErrUnsupported) {
		fmt.Fprintf(os.Stderr, "the ways are left out: %v\n", err)
		check(os.Remove(at))
		return
	}
	check(err)
	defer func() { check(errors.Join(disk.Close(), os.Remove(at))) }()
	work := must(os.MkdirTemp("", "dcb")) // short: docker's socket is in it
	defer func() { check(os.RemoveAll(work)) }()
	for name, l := range wayLinks {
		b.server.open(ctx, name, l)
	}
	w := &waysRun{bench: b, ctx: ctx, disk: disk, work: work,
		loadImage: b.build(ctx, "load-image"), engineRoot: b.build(ctx, "engine-root"), serveCache: b.build(ctx, "serve-cache")}
	w.engine = startDocker(work, b.env, dockerd)
	defer w.engine.stop()
	result := newWaysResult()
	for _, gib := range b.waysSizes {
		w.measureSize(int64(gib*(1<<30)), result)
	}
	result.count(b)
}

// measureSize measures all ways with an image of so many bytes.
func (w *waysRun) measureSize(size int64, result *waysResult) {
	w.make(size)
	defer w.remove()
	for _, registry := range w.waysRegistries {
		w.measureRegistry(registry)
		w.pulls(registry)
	}
	for _, rate := range w.waysRates {
		if longest := time.Duration(float64(size) / (rate * 1e6) * float64(time.Second)); longest > w.waysLongest {
			fmt.Fprintf(os.Stderr, "%.4g MiB from %g MB/s is left out: %.0f s for each read\n", mib(size), rate, longest.Seconds())
			continue
		}
		w.fromStorage(rate)
	}
	if len(w.rated) > 0 {
		result.add(w)
	}
}

const (
	wayTag = "ways-1"   // of the image
	oldTag = "ways-old" // of the build before
)

// make makes an image and its predecessor, which has all but the last of its layers, 5 %, stocks the
// image, and makes a template of it. One layer is most of it, as of images with CUDA or ROCm.
func (w *waysRun) make(size int64) {
	fmt.Fprintf(os.Stderr, "making the images of %.4g MiB for the ways\n", mib(size))
	w.size, w.cells, w.rates, w.rated = size, nil, newWayRates(), nil
	var base []layer
	for i, percent := range []int64{1, 92, 1, 1} {
		base = append(base, w.makeLayer(fmt.Sprint("ways-base-", i), size*percent/100))
	}
	old, last := w.makeLayer("ways-old", size*5/100), w.makeLayer("ways-new", size*5/100)
	w.makeTag(oldTag, append(slices.Clone(base), old)...)
	w.makeTag(wayTag, append(slices.Clone(base), last)...)
	w.layers = append(slices.Clone(base), old, last)
	// Its name is at a limited registry, its bytes come without a limit.
	link := w.waysRegistries[0]
	w.stockWith(w.ctx, []string{"-mirror", w.server.repository(straight)}, w.disk.Dir, "main", link, wayTag)
	w.run(w.engineRoot, "build", "-dir", w.disk.Dir, w.reference())
	w.engine.client(w.ctx, "pull", "-q", w.server.reference(straight, wayTag))
	w.id = w.idOf(w.server.reference(straight, wayTag))
	w.engine.forget(w.ctx)
}

// reference is what the image is stocked as.
func (w *waysRun) reference() string { return w.server.reference(w.waysRegistries[0], wayTag) }

// tarball is the path of the image's.
func (w *waysRun) tarball() string { return filepath.Join(w.disk.Dir, "ways_main.tar") }

// remove removes what make made.
func (w *waysRun) remove() {
	w.engine.forget(w.ctx)
	for _, l := range w.layers {
		check(os.Remove(filepath.Join(w.scratch, blobName(l.Digest))))
	}
	for _, e := range must(os.ReadDir(w.disk.Dir)) {
		check(os.RemoveAll(filepath.Join(w.disk.Dir, e.Name())))
	}
}

func (w *waysRun) run(args ...string) string { return output(w.ctx, w.env, args...) }

// idOf returns what the engine has under a reference.
func (w *waysRun) idOf(reference string) string {
	var found []struct {
		ID string `json:"Id"`
	}
	check(json.Unmarshal([]byte(w.engine.client(w.ctx, "image", "inspect", reference)), &found))
	return found[0].ID
}

// forgetAllBut removes the engine's images but that of a reference.
func (w *waysRun) forgetAllBut(reference string) {
	kept := w.idOf(reference)
	for _, id := range slices.Compact(slices.Sorted(slices.Values(strings.Fields(w.engine.client(w.ctx, "image", "ls", "-q", "-a", "--no-trunc"))))) {
		if id != kept {
			w.engine.client(w.ctx, "image", "rm", "-f", id)
		}
	}
}

// measure runs one way by a command, after which the engine must have the image as reference,
// and records it as that of a cell. The disk has nothing left to write before, and the page cache
// nothing of the storage.
func (w *waysRun) measure(c wayCell, reference string, args ...string) {
	w.record(c, func() *usage {
		w.have(c.finds)
		w.settle()
		u := w.engine.measured(w.ctx, args)
		if got := w.idOf(reference); got != w.id {
			check(fmt.Errorf("%s: the engine has %s, not %s", c.way, got, w.id))
		}
		return u
	})
}

// wayRuns is how often a way runs that takes less than shortWay; the median counts. Others run once.
const wayRuns, shortWay = 3, 15 * time.Second

// record runs a way, and records it as that of a cell.
func (w *waysRun) record(c wayCell, run func() *usage) {
	took := []time.Duration{run().Wall}
	for took[0] < shortWay && len(took) < wayRuns {
		took = append(took, run().Wall)
	}
	slices.Sort(took)
	c.predicted, c.real = w.predicted(c), took[len(took)/2].Seconds()
	w.cells = append(w.cells, &c)
	fmt.Fprintf(os.Stderr, "%.4g MiB, %s, %s, the engine has %s: %.2f s, predicted %.2f s\n", mib(w.size), c.way, c.source(), c.finds, c.real, c.predicted)
}

// settle ends what runs before have left to do, and has free memory at hand.
func (w *waysRun) settle() {
	check(throttled.Forget(w.disk.Dir))
	f := must(os.Open(w.work))
	check(unix.Syncfs(int(f.Fd())))
	check(f.Close())
	warm(warmTimes * w.size)
}

// have lets the engine have what a cell says. The way that runs before leaves the image there.
func (w *waysRun) have(finds string) {
	switch finds {
	case cold:
		w.engine.forget(w.ctx)
	case delta:
		w.haveOld()
	}
}

// haveOld lets the engine, which has the image, have the build before in place of it.
func (w *waysRun) haveOld() {
	old := w.server.reference(straight, oldTag)
	w.engine.client(w.ctx, "pull", "-q", old)
	w.forgetAllBut(old)
}

// pulls measures plain pulls.
func (w *waysRun) pulls(registry string) {
	reference := w.server.reference(registry, wayTag)
	pull := w.engine.arguments("pull", "-q", reference)
	c := wayCell{registry: registry, way: "pull"}
	for _, c.finds = range []string{cold, present, delta} {
		w.measure(c, reference, pull...)
	}
	w.engine.forget(w.ctx)
}

// fromStorage measures the ways that read a storage, at a rate in MB/s.
func (w *waysRun) fromStorage(rate float64) {
	check(w.disk.SetRate(int64(rate * 1e6)))
	defer func() { check(w.disk.SetRate(0)) }()
	w.measureStorage(rate)
	stop, mirror := w.startServeCache()
	defer stop()
	ways := []struct {
		name, reference string
		args            []string
		finds           []string
	}{
		// All of the archive is sent whatever the engine has.
		{"docker-load", w.reference(), w.engine.arguments("load", "-q", "-i", w.tarball()), []string{cold}},
		{"serve-cache", mirror, w.engine.arguments("pull", "-q", mirror), []string{cold, present, delta}},
		{"load-image", w.reference(), []string{w.loadImage, "-quiet", "-host", w.engine.socket, "-lock-dir", filepath.Join(w.scratch, "locks"), "-dir", w.disk.Dir, w.reference()},
			[]string{cold, present, delta}},
		// The image is there before the job comes.
		{"keep-loaded", w.reference(), w.engine.arguments("image", "inspect", w.reference()), []string{present}},
	}
	for _, way := range ways {
		c := wayCell{storage: rate, way: way.name}
		for _, c.finds = range way.finds {
			w.measure(c, way.reference, way.args...)
		}
	}
	w.engine.forget(w.ctx)
	w.record(wayCell{storage: rate, way: "engine-root", finds: cold}, func() *usage { w.settle(); return w.clone() })
}

// startServeCache serves the directory of tarballs, and returns what the image is there.
func (w *waysRun) startServeCache() (stop func(), reference string) {
	host, _, _ := strings.Cut(w.reference(), "/")
	cmd := exec.CommandContext(w.ctx, w.serveCache, "-addr", "127.0.0.1:0", "-dir", w.disk.Dir, "-registry", host)
	cmd.Env, cmd.Stderr = append(os.Environ(), w.env...), os.Stderr
	out := must(cmd.StdoutPipe())
	check(cmd.Start())
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // its error is the kill
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_, address, ok := strings.Cut(strings.TrimSpace(line), " at http://")
	if !ok {
		stop()
		check(fmt.Errorf("serve-cache printed %q: %w", line, err))
	}
	return stop, address + strings.TrimPrefix(w.reference(), host)
}

// clone starts an engine on a clone of the template, and waits until it shows the image.
func (w *waysRun) clone() *usage {
	dir := must(os.MkdirTemp(w.work, "e"))
	defer func() { check(os.RemoveAll(dir)) }()
	data := filepath.Join(dir, "docker", "data")
	check(os.MkdirAll(data, 0o700))
	begun := time.Now()
	w.run(w.engineRoot, "clone", "-dir", w.disk.Dir, "-no-copy", "-mount", data, w.reference())
	e := startDocker(dir, w.env, dockerd)
	e.client(w.ctx, "image", "inspect", w.reference())
	u := &usage{Wall: time.Since(begun)}
	e.stop()
	w.run(w.engineRoot, "discard", data)
	return u
}
