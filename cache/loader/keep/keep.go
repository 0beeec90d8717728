package keep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/internal/backoff"
	"github.com/dockercache/dockercache/internal/wait"
)

// Options of a [Keeper]. The zero value of each field works.
type Options struct {
	// Match reports whether the tarball of this name is watched. Default: all are.
	Match func(name string) bool
	// LookEvery is how long it waits between two looks. Default: 500 ms.
	LookEvery time.Duration
	// CheckEvery is how often the engine is asked whether it still has the images, and what
	// is left to be removed is tried again. Default: 1 minute.
	CheckEvery time.Duration
	// Versions is how many versions of each tarball's image stay in the engine, the newest
	// included. Default: all. The engine must be a [loader.Remover].
	Versions int
	// Pin marks the newest version of each image as one that is not to be removed, in an
	// engine that is a [loader.Pinner].
	Pin bool
	// State is the file that records what was loaded, which only one Keeper may have.
	// Default: none, and what an earlier Keeper has loaded is never removed.
	State string
	// Busy reports why nothing is to be loaded or removed now, such as a job that runs; "" is
	// no reason. A load that is under way goes on. Default: never.
	Busy func() string
	// StalledAfter is for how long a step may make no progress that can be seen before the
	// Keeper is unhealthy, see [Activity]. It goes on all the same: an engine may be slow and
	// report nothing. Default: 30 minutes; less than 0 is for any time.
	StalledAfter time.Duration
	// Load are the options of each load, without Observer: an [Event] has the phases.
	Load loader.Options
	// Loaded, when not nil, is called after each load, and each failure.
	Loaded func(Event)
	// Logger logs what went otherwise than expected. Default: silent.
	Logger *slog.Logger
}

// An Event is a load that has ended.
type Event struct {
	Name   string // of the tarball
	Result *loader.Result
	// Image is the reference; "" if the tarball could not be opened.
	Image, Digest string
	// Began is when the load began.
	Began   time.Time
	Seconds float64
	// Phases is how long each phase took.
	Phases map[timing.Phase]time.Duration
	// Engine is the kind of engine, see [loader.Product].
	Engine string
	Err    error
}

const (
	lookEvery  = 500 * time.Millisecond
	checkEvery = time.Minute
	// Between two attempts at an image, at a look, and at the engine.
	firstRetry, lastRetry = time.Second, 5 * time.Minute
)

// A Keeper keeps images in an engine. It is made by [New]. Run and Once may not be called while
// the other or the same is running; all else is safe for concurrent use.
type Keeper struct {
	store  Store
	open   func(ctx context.Context) (loader.Engine, error)
	o      Options
	log    *slog.Logger
	now    func() time.Time
	state  *state
	engine loader.Engine // nil until it is open
	next   time.Time     // when the engine is asked again
	lookAt time.Time     // not before, after looks that failed

	mu     sync.Mutex // guards what follows, which is written by Run and Once alone
	status Status
	images map[string]*image
}

// image is what is known of a tarball.
type image struct {
	Image
	version Version
	id      v1.Hash // what the engine calls it; zero if it is not known to be there
}

// New returns a Keeper of the images of a store. open opens the engine, and is called again
// after it was not reachable. The error is that of reading [Options].State.
func New(store Store, open func(ctx context.Context) (loader.Engine, error), o *Options) (*Keeper, error) {
	k := &Keeper{store: store, open: open, now: time.Now, images: map[string]*image{}}
	if o != nil {
		k.o = *o
	}
	k.o.LookEvery = cmp.Or(k.o.LookEvery, lookEvery)
	k.o.CheckEvery = cmp.Or(k.o.CheckEvery, checkEvery)
	k.o.StalledAfter = cmp.Or(k.o.StalledAfter, stalledAfter)
	k.o.Load.Progress, k.o.Load.Unpacking = k.progress(k.o.Load.Progress), k.progress(k.o.Load.Unpacking)
	if k.log = k.o.Logger; k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	k.o.Load.Logger = cmp.Or(k.o.Load.Logger, k.log)
	var err error
	k.state, err = readState(k.o.State)
	return k, err
}

// Run keeps the images until ctx ends, and returns the error of that. A load that is under way
// then is ended, as [loader.Load] describes.
func (k *Keeper) Run(ctx context.Context) error {
	for {
		k.step(ctx)
		if err := wait.Sleep(ctx, k.o.LookEvery); err != nil {
			return err
		}
	}
}

// Once looks once, and tries once to load each image that is not there. The error joins what
// went wrong; it wraps [ErrBusy] if there was a reason to wait.
func (k *Keeper) Once(ctx context.Context) error {
	k.step(ctx)
	if ctx.Err() != nil {
		return wait.Err(ctx)
	}
	s := k.Status()
	var errs []error
	if s.Busy != "" {
		errs = append(errs, fmt.Errorf("%w: %s", ErrBusy, s.Busy))
	}
	errs = append(errs, s.StoreError, s.EngineError)
	for _, i := range s.Images {
		errs = append(errs, i.Error)
	}
	return errors.Join(errs...)
}

// ErrBusy is wrapped by the error of [Keeper.Once] when [Options].Busy gave a reason.
var ErrBusy = errors.New("nothing is loaded now")

// step looks once and does what there is to do.
func (k *Keeper) step(ctx context.Context) {
	if k.now().Before(k.lookAt) {
		return
	}
	defer k.begin("", "")
	k.begin(Looking, "")
	found, err := k.store.Look(ctx)
	if ctx.Err() != nil {
		return
	}
	k.looked(found, err)
	busy := ""
	if k.o.Busy != nil {
		busy = k.o.Busy()
	}
	k.mu.Lock()
	k.status.Busy = busy
	k.mu.Unlock()
	if err != nil || busy != "" {
		return
	}
	check := !k.now().Before(k.next)
	due := k.due()
	if len(due) == 0 && !check {
		return
	}
	if err := k.connect(ctx, check); err != nil {
		return
	}
	if check {
		due = k.due() // what the engine has lost is among them
	}
	for _, i := range due {
		if ctx.Err() != nil || k.engine == nil {
			return
		}
		k.load(ctx, i)
	}
	if check {
		k.next = k.now().Add(k.o.CheckEvery)
		k.removeOld(ctx)
	}
}

// looked records what there is.
func (k *Keeper) looked(found map[string]Version, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.Looks++
	k.status.StoreError = err
	if err != nil {
		k.status.LookFailures++
		k.status.lookFailures++
		k.lookAt = k.now().Add(backoff.Delay(firstRetry, lastRetry, k.status.lookFailures))
		k.log.Warn("the tarballs cannot be listed", "store", k.store.Path(), "error", err)
		return
	}
	k.status.lookFailures, k.status.Looked = 0, k.now()
	for name, version := range found {
		if k.o.Match != nil && !k.o.Match(name) {
			continue
		}
		i := k.images[name]
		if i == nil {
			i = &image{Image: Image{Name: name, Loads: map[loader.Outcome]int{}, Phases: map[timing.Phase]time.Duration{}}}
			k.images[name] = i
		}
		if i.version.ID != version.ID {
			i.version, i.id, i.Ready = version, v1.Hash{}, false
			i.Failures, i.Error, i.Retry = 0, nil, time.Time{}
		}
	}
	maps.DeleteFunc(k.images, func(name string, _ *image) bool { _, ok := found[name]; return !ok })
}

// due returns the images that are to be loaded now, the newest first.
func (k *Keeper) due() (due []*image) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, i := range k.images {
		if !i.Ready && !k.now().Before(i.Retry) {
			due = append(due, i)
		}
	}
	slices.SortFunc(due, func(a, b *image) int {
		return cmp.Or(b.version.Written.Compare(a.version.Written), cmp.Compare(a.Name, b.Name))
	})
	return due
}

// connect opens the engine, if it is not, and finds out whether it has the images, if check is
// true or the engine is another one.
func (k *Keeper) connect(ctx context.Context, check bool) (err error) {
	k.mu.Lock()
	retry := k.status.engineRetry
	k.mu.Unlock()
	if k.now().Before(retry) {
		return errors.New("it is not yet time")
	}
	defer func() { k.engineAnswered(ctx, err) }()
	k.begin(Asking, "")
	if k.engine == nil {
		if k.engine, err = k.open(ctx); err != nil {
			k.engine = nil
			return err
		}
		id, err := k.engine.ID(ctx)
		if err != nil {
			return err
		}
		k.state.use(id)
		check = true
	}
	if !check {
		return nil
	}
	for _, i := range k.ready() {
		k.begin(Asking, i.Name)
		id, state, err := k.engine.Find(ctx, i.Reference)
		if err != nil {
			return err
		}
		if id != i.id || state == loader.Incomplete {
			k.log.Info("the engine has lost the image: loading it again", "image", i.Reference)
			k.mu.Lock()
			i.Ready, i.Retry = false, time.Time{}
			k.mu.Unlock()
		}
	}
	return nil
}

// ready returns the images that the engine has.
func (k *Keeper) ready() (ready []*image) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, i := range k.images {
		if i.Ready {
			ready = append(ready, i)
		}
	}
	return ready
}

// engineAnswered records whether the engine can be used. One that cannot is opened again.
func (k *Keeper) engineAnswered(ctx context.Context, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	k.status.EngineError = err
	if err == nil {
		k.status.engineFailures, k.status.engineRetry = 0, time.Time{}
		return
	}
	k.log.Warn("the engine cannot be used", "error", err)
	k.engine = nil
	k.status.EngineFailures++
	k.status.engineFailures++
	k.status.engineRetry = k.now().Add(backoff.Delay(firstRetry, lastRetry, k.status.engineFailures))
}

// load loads one image.
func (k *Keeper) load(ctx context.Context, i *image) {
	e := Event{Name: i.Name, Began: k.now(), Result: &loader.Result{}}
	k.begin(Loading, i.Name)
	var id v1.Hash
	var phases timing.Recorder
	id, e.Err = k.try(ctx, i, &e, &phases)
	timing.End(&phases)
	e.Phases, e.Engine = phases.Spent(), loader.Product(k.engine)
	k.begin("", "")
	if ctx.Err() != nil {
		return
	}
	e.Seconds = k.now().Sub(e.Began).Seconds()
	k.mu.Lock()
	i.Image.Reference, i.Digest = cmp.Or(e.Image, i.Image.Reference), cmp.Or(e.Digest, i.Digest)
	i.Seconds += e.Seconds
	i.Streamed += e.Result.Streamed
	for p, d := range e.Phases {
		i.Phases[p] += d
	}
	if i.Error = e.Err; e.Err == nil {
		i.Ready, i.id, i.Failures = true, id, 0
		i.Loads[e.Result.Outcome]++
		i.Loaded, i.Delay = k.now(), max(e.Began.Sub(i.version.Written), 0)
	} else {
		i.Failures++
		i.Failed++
		i.Retry = k.now().Add(backoff.Delay(firstRetry, lastRetry, i.Failures))
	}
	k.mu.Unlock()
	if errors.Is(e.Err, loader.ErrUnreachable) {
		k.engineAnswered(ctx, e.Err)
	}
	if k.o.Loaded != nil {
		k.o.Loaded(e)
	}
	if e.Err == nil {
		k.record(i.Name, entry{e.Image, id})
		k.removeOldOf(ctx, i.Name)
	}
}

// try opens the tarball and loads its image. It returns what the engine calls that.
func (k *Keeper) try(ctx context.Context, i *image, e *Event, phases *timing.Recorder) (id v1.Hash, err error) {
	timing.Begin(phases, timing.Look)
	t, err := k.store.Get(ctx, i.Name)
	if err != nil {
		return id, err
	}
	defer t.Close()
	e.Image, e.Digest = t.Image.Reference(), t.Image.Digest().String()
	o := k.o.Load
	o.Observer = phases
	if e.Result, err = loader.Load(ctx, k.engine, t, &o); err != nil {
		return id, err
	}
	_ = k.store.Touch(ctx, i.Name) // best effort: who may read need not be allowed to write
	if id, _, err = k.engine.Find(ctx, e.Image); err != nil {
		return id, err
	}
	if pinner, ok := k.engine.(loader.Pinner); ok && k.o.Pin {
		if err := pinner.Pin(ctx, e.Image); err != nil {
			return id, fmt.Errorf("pin %s: %w", e.Image, err)
		}
	}
	return id, nil
}
