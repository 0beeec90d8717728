package measure

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/advise"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/server"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/internal/wait"
)

// EngineOptions of [Engine]. The zero value of each field works.
type EngineOptions struct {
	// Limit of the larger of two samples, as the layer is served: Bytes is at most how many of the image's
	// largest layer are read, and Time is how long all loads may take, before which none begins that is not
	// needed. Default: 20 s, 64 MiB.
	Limit Limit
	// TempDir is where the samples are written, which the page cache should hold. Default: os.TempDir().
	TempDir string
	// Ask asks the engine for an image as a job does, by the engine's own client: docker image inspect, for
	// example. Its start is most of what a job waits that finds the image. Nil, or one that fails: it is taken to
	// start as fast as load-image.
	Ask func(ctx context.Context, reference string) error
	// Open connects to the engine once more, as each program that starts does: what it asks first counts too. Nil:
	// that takes no time.
	Open func(ctx context.Context) (loader.Engine, error)
	// Start starts load-image, or a program like it, which ends at once. Nil, or one that fails: it takes 60 ms.
	Start func(ctx context.Context) error
}

const (
	smallSample   = 4 << 20
	removeTimeout = 30 * time.Second
)

// clientStart is how long load-image takes to start where that was not measured: 40 to 60 ms on a machine with
// nothing else to do, see BENCHMARKS.md. It is most of what a job waits that finds the image.
const clientStart = 60 * time.Millisecond

// sampleRepository is the name of the images of samples, with a tag that nobody else has; what is pulled comes
// from there too. It is always the same: containerd records with each layer the repositories that it came from.
const sampleRepository = "localhost/dockercache-advise"

func sampleTag() string { return strings.ToLower(rand.Text()) }

// Engine measures how fast an engine loads an image. It is given images of one layer: the first
// bytes of the image's largest layer, few of them and many. What differs between the two is what
// the bytes take, and the rest what any load does. An engine that is sent archives by loads is made to
// pull such images too. They are removed again, so the error wraps
// [errors.ErrUnsupported] for an engine that is no [loader.Remover].
func Engine(ctx context.Context, e loader.Engine, img *tarball.Image, src tarball.Source, o *EngineOptions) (_ *advise.Engine, _ []Sample, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("measure how the engine loads %s: %w", img.Reference(), err)
		}
	}()
	if o == nil {
		o = &EngineOptions{}
	}
	remover, ok := e.(loader.Remover)
	if !ok {
		return nil, nil, fmt.Errorf("%w: an engine that cannot remove images would keep the sample", errors.ErrUnsupported)
	}
	limit := o.Limit.or(20*time.Second, 64<<20)
	dir, err := os.MkdirTemp(o.TempDir, "dockercache-advise-")
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	layer, err := largest(img)
	if err != nil {
		return nil, nil, err
	}
	begun := time.Now()
	many, err := beginning(ctx, src, layer, limit.Bytes)
	if err != nil {
		return nil, nil, err
	}
	made := Sample{What: "read of the largest layer for samples", Bytes: min(limit.Bytes, layer.Size), Took: time.Since(begun)}
	few, err := many.first(min(smallSample, many.packed/4))
	if err != nil {
		return nil, nil, err
	}
	s := sampler{engine: e, open: o.Open, remover: remover, dir: dir, platform: img.Platform()}
	defer func() { err = errors.Join(err, s.remove(ctx)) }()
	result := &advise.Engine{}
	puller, canPull := e.(loader.Puller)
	result.Pulls = canPull && puller.Pulls(ctx)
	begun = time.Now()
	var loads []Load
	samples := []Sample{made}
	for _, c := range []*content{few, many, few, many} { // the first one also makes the engine ready
		if len(loads) >= 2 && time.Since(begun)*3/2 > limit.Time {
			break
		}
		load, sample, err := s.load(ctx, e, c)
		if err != nil {
			return nil, nil, err
		}
		loads, samples = append(loads, load), append(samples, sample)
	}
	found, err := s.find(ctx)
	if err != nil {
		return nil, nil, err
	}
	samples = append(samples, Sample{What: times(len(found), "load") + " of an image that is there", Took: sum(found)})
	between(result, loads)
	start := clientStart.Seconds()
	if o.Start != nil {
		took, started := tried(ctx, "start", "of a program like load-image", o.Start)
		start, samples = cmp.Or(took, start), append(samples, started)
	}
	result.Find = start + median(found)
	if o.Ask != nil {
		took, asked := tried(ctx, "question", "by its own client", func(ctx context.Context) error { return o.Ask(ctx, s.loaded[len(s.loaded)-1]) })
		result.Ask, samples = took, append(samples, asked)
	}
	if !canPull || time.Since(begun) >= limit.Time {
		return result, samples, wait.Err(ctx)
	}
	if !result.Pulls {
		var pulled []Sample
		if result.Pulling, pulled, err = s.pull(ctx, &pulling{Engine: e, puller: puller}, few, many, begun.Add(limit.Time)); err != nil {
			return nil, nil, err
		}
		samples = append(samples, pulled...)
	}
	if result.Pulls || result.Pulling != nil {
		var again Sample
		result.PullPresent, again = s.pullAgain(ctx, puller)
		samples = append(samples, again)
	}
	return result, samples, wait.Err(ctx)
}

// pulling is an engine that is made to pull, also where loads had better send an archive: it is
// what plain pulls, and those from serve-cache, do.
type pulling struct {
	loader.Engine
	puller loader.Puller
	failed error // of a pull: then the load sends an archive
}

func (*pulling) Pulls(context.Context) bool { return true }

func (p *pulling) Pull(ctx context.Context, reference string) error {
	err := p.puller.Pull(ctx, reference)
	p.failed = errors.Join(p.failed, err)
	return err
}

// pull measures pulls from loopback. Of an engine that cannot, as one on another machine, the
// result is nil: it is taken to pull as fast as it loads. A note says why. After until no pull begins that is
// not needed.
func (s *sampler) pull(ctx context.Context, e *pulling, few, many *content, until time.Time) (*advise.Pulling, []Sample, error) {
	var loads []Load
	var samples []Sample
	for _, c := range []*content{few, many, few, many} {
		if len(loads) >= 2 && time.Now().After(until) {
			break
		}
		load, sample, err := s.load(ctx, e, c)
		if err := errors.Join(wait.Err(ctx), err); err != nil {
			return nil, nil, err
		}
		sample.What = "pulled by the engine"
		if e.failed != nil {
			sample.Note = "loaded, since the pull failed: " + e.failed.Error()
			return nil, append(samples, sample), nil
		}
		loads, samples = append(loads, load), append(samples, sample)
	}
	var found advise.Engine
	between(&found, loads)
	return &advise.Pulling{Fixed: found.Fixed, Intake: found.Intake, Unpack: found.Unpack}, samples, nil
}

// largest returns the image's largest layer.
func largest(img *tarball.Image) (found v1.Descriptor, err error) {
	for _, l := range img.Layers() {
		if l.Size > found.Size {
			found = l
		}
	}
	if found.Size == 0 {
		return found, errors.New("no layer has any bytes: there is nothing to make a sample of")
	}
	return found, nil
}

// A Load is what was recorded of a load of a whole image into an engine that had nothing of it.
type Load struct {
	// Bytes is how many the layers have, compressed.
	Bytes int64
	// Stream and Engine are how long those phases took, see [timing]; Fixed all others.
	Stream, Engine, Fixed time.Duration
}

func (l Load) total() time.Duration { return l.Stream + l.Engine + l.Fixed }

// Loads returns what loads say of the engine that were recorded, in place of [Engine]. The seconds of a
// load that depend on no bytes cannot be told from the others there, but for those of other
// phases. pulls is whether the engine is made to pull. The error says that there is nothing to go
// by.
func Loads(loads []Load, pulls bool) (*advise.Engine, error) {
	var bytes int64
	var stream, engine time.Duration
	var fixed []time.Duration
	for _, l := range loads {
		if l.Bytes <= 0 || l.Stream <= 0 || l.Engine <= 0 || l.Fixed < 0 {
			continue
		}
		bytes += l.Bytes
		stream, engine = stream+l.Stream, engine+l.Engine
		fixed = append(fixed, l.Fixed)
	}
	if len(fixed) == 0 {
		return nil, errors.New("no load is recorded that took the engine any time")
	}
	return &advise.Engine{
		Fixed: median(fixed), Intake: float64(bytes) / stream.Seconds(), Unpack: float64(bytes) / engine.Seconds(), Pulls: pulls,
		Find: clientStart.Seconds(),
	}, nil
}

// between sets what small and large loads say, which take turns. The fastest of each counts: what else the
// machine does, and the flush of what was loaded before, only make a load slower, by a second and
// more beside a busy disk.
func between(e *advise.Engine, loads []Load) {
	few, many := loads[0], loads[1]
	for i, l := range loads {
		fastest := &few
		if i%2 == 1 {
			fastest = &many
		}
		if l.total() < fastest.total() {
			*fastest = l
		}
	}
	bytes := many.Bytes - few.Bytes
	// Of a layer of a few bytes the two hardly differ, and noise may make the larger load the faster one.
	per := func(few, many time.Duration, all int64) float64 {
		if more := many - few; more > many/10 && bytes > 0 {
			return float64(bytes) / more.Seconds()
		}
		return float64(all) / max(many, time.Millisecond).Seconds()
	}
	e.Intake = per(few.Stream, many.Stream, many.Bytes)
	e.Unpack = per(few.Engine, many.Engine, many.Bytes)
	total := few.total().Seconds()
	e.Fixed = max(total-float64(few.Bytes)*(1/e.Intake+1/e.Unpack), 0)
}

// A sampler loads samples.
type sampler struct {
	engine   loader.Engine
	open     func(ctx context.Context) (loader.Engine, error) // nil: engine is used
	remover  loader.Remover
	dir      string
	platform v1.Platform

	loaded []string // references
	last   *tarball.Tarball
}

// load loads an image of the content. The load before is removed only in the end: so the time of
// removing is nobody's, and each sample finds the engine as it was.
func (s *sampler) load(ctx context.Context, e loader.Engine, c *content) (Load, Sample, error) {
	ref := sampleRepository + ":" + sampleTag()
	img, src, err := c.image(ctx, ref, s.platform)
	if err != nil {
		return Load{}, Sample{}, err
	}
	path := filepath.Join(s.dir, fmt.Sprintf("%d.tar", len(s.loaded)))
	if err := cache.WriteTarball(ctx, path, img, src, nil); err != nil {
		return Load{}, Sample{}, err
	}
	t, err := tarball.Open(path)
	if err != nil {
		return Load{}, Sample{}, err
	}
	if s.last != nil {
		_ = s.last.Close()
	}
	s.last, s.loaded = t, append(s.loaded, ref)
	// An engine that has the archive goes on when nobody waits for it, and names the image after it
	// was to be removed. So a load that has begun is waited for.
	loading, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(removeTimeout, cancel) })()
	var r timing.Recorder
	begun := time.Now()
	_, err = loader.Load(loading, e, t, &loader.Options{Observer: &r, LockDir: s.dir})
	if err = errors.Join(wait.Err(ctx), err); err != nil {
		return Load{}, Sample{}, err
	}
	took := time.Since(begun)
	spent := r.Spent()
	l := Load{Bytes: c.packed, Stream: spent[timing.Stream], Engine: spent[timing.Engine]}
	l.Fixed = took - l.Stream - l.Engine
	return l, Sample{What: "loaded by the engine", Bytes: c.packed, Took: took}, nil
}

// find measures a load of what is there.
func (s *sampler) find(ctx context.Context) (took []time.Duration, err error) {
	for range tries {
		begun := time.Now()
		engine := s.engine
		if s.open != nil {
			if engine, err = s.open(ctx); err != nil {
				return nil, err
			}
		}
		result, err := loader.Load(ctx, engine, s.last, &loader.Options{LockDir: s.dir})
		if err != nil {
			return nil, err
		}
		if result.Outcome != loader.Present {
			return nil, fmt.Errorf("the engine no longer has a sample that it has loaded: it is %s", result.Outcome)
		}
		took = append(took, time.Since(begun))
	}
	return took, nil
}

// pullAgain measures how long pulls of an image take that is there. The first pull only gives it a name of
// that registry, and does not count.
func (s *sampler) pullAgain(ctx context.Context, p loader.Puller) (seconds float64, _ Sample) {
	const pull, there = "pull", "of an image that is there"
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, failedSample(pull, there, err)
	}
	tag := sampleTag()
	ref := listener.Addr().String() + "/" + sampleRepository + ":" + tag
	registry := http.Server{Handler: server.NewSingle(s.last, sampleRepository, tag, nil), ReadHeaderTimeout: tryLimit}
	go func() { _ = registry.Serve(listener) }() // ends with ErrServerClosed
	defer registry.Close()
	s.loaded = append(s.loaded, ref)
	again := func(ctx context.Context) error { return p.Pull(ctx, ref) }
	naming, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	if err := again(naming); err != nil {
		return 0, failedSample(pull, there, err)
	}
	return tried(ctx, pull, there, again)
}

// remove removes what was loaded, also when ctx has ended.
func (s *sampler) remove(ctx context.Context) (err error) {
	if s.last != nil {
		_ = s.last.Close()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	for _, ref := range s.loaded {
		if failed := s.remover.Remove(ctx, ref); failed != nil {
			err = errors.Join(err, fmt.Errorf("the sample %s stays in the engine: %w", ref, failed))
		}
	}
	return err
}
