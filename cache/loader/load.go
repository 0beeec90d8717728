package loader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
)

// An Outcome is what [Load] has done.
type Outcome string

// The outcomes.
const (
	Present Outcome = "present"      // the engine had the image under its reference
	Loaded  Outcome = "loaded"       // it was sent the whole archive
	Delta   Outcome = "loaded-delta" // it was sent less, since it had layers already
)

// Result is what [Load] returns.
type Result struct {
	// Outcome is empty when the load failed.
	Outcome Outcome
	// Streamed is how many bytes the engine was sent, in all attempts.
	Streamed int64
	// Total is the size of the tarball.
	Total int64
}

// Options of [Load]. The zero value of each field works.
type Options struct {
	// Whole makes it send the whole archive, also when the engine has layers of it, or
	// would rather pull.
	Whole bool
	// NoPull makes it send an archive also to an engine that would rather pull.
	NoPull bool
	// LockDir is where the processes of a machine that load the same image find each
	// other. Default: dockercache-load below [os.TempDir]. What may go wrong with it
	// costs only that two load the same.
	LockDir string
	// Progress, when not nil, is told how much of what has to be sent was sent. A
	// second try begins anew, with another total. An engine that pulls may want less
	// than the total: what it lacks only it knows. It must be quick.
	Progress func(cache.Progress)
	// Logger is told of what went otherwise than hoped. Default: silent.
	Logger *slog.Logger
}

// mostVersions is how many versions of a tarball are tried when it is replaced
// again and again while it is sent.
const mostVersions = 3

// Load makes the engine have the image of a tarball under its reference. When the
// file is replaced meanwhile, it may be the image of the one that has its place.
//
// Of several that load the same image into the same engine, on one machine, one
// does and the others wait for it.
//
// The result is never nil. The error wraps [ErrEngine], [ErrUnreachable] or
// [ErrUnproven], [cache.ErrBlobDigest] when the tarball is damaged, or is that of
// reading it, or of ctx. After an error the reference names what it did before,
// as far as the engine still answers and can give it back (containerd without Docker
// cannot, and a wrong guess takes it away already); never an image that cannot be
// used.
func Load(ctx context.Context, engine Engine, tarball *cache.Tarball, o *Options) (*Result, error) {
	if o == nil {
		o = &Options{}
	}
	l := newLoad(engine, tarball, o)
	err := l.run(ctx, tarball)
	if err != nil {
		l.result.Outcome = ""
		err = fmt.Errorf("load %s: %w", tarball.Image.Reference(), err)
	}
	return l.result, err
}

type load struct {
	engine  Engine
	options *Options
	log     *slog.Logger
	reach   time.Duration
	result  *Result
}

func newLoad(engine Engine, tarball *cache.Tarball, o *Options) *load {
	l := &load{engine: engine, options: o, log: o.Logger, reach: reachTime, result: &Result{Total: tarball.Layout.Size()}}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	return l
}

func (l *load) run(ctx context.Context, tarball *cache.Tarball) error {
	if there, _, err := l.isThere(ctx, tarball.Image); there || err != nil {
		return err
	}
	id, err := l.engine.ID(ctx)
	if err != nil {
		return err
	}
	unlock, err := lock(ctx, l.options.LockDir, id+" "+tarball.Image.Reference(), l.log)
	if err != nil {
		return err
	}
	defer unlock()
	for version := 1; ; version++ {
		err := l.bring(ctx, tarball)
		if !errors.Is(err, cache.ErrReplaced) || version == mostVersions {
			return err
		}
		l.log.Info("the tarball was replaced while it was sent", "tarball", tarball.Path)
		next, readErr := cache.ReadTarball(tarball.Path)
		switch {
		case readErr != nil:
			return fmt.Errorf("%w; %w", err, readErr)
		case next.Image.Reference() != tarball.Image.Reference():
			return fmt.Errorf("%w: it holds %s now", err, next.Image.Reference())
		}
		tarball, l.result.Total = next, next.Layout.Size()
	}
}

// isThere tells whether the engine has the image, and what has its reference.
func (l *load) isThere(ctx context.Context, image *cache.Image) (bool, v1.Hash, error) {
	id, usable, err := l.engine.Find(ctx, image.Reference())
	if err != nil || !is(image, id) || !usable {
		return false, id, err
	}
	// Docker 25 to 27 name an image by its manifest only in containerd's store, which
	// keeps broken ones, and do not say which those are.
	if d, ok := l.engine.(*Docker); ok && d.silent && id == image.Digest() {
		if err := d.Prove(ctx, id); err != nil {
			l.log.Warn("the image is there and cannot be used: loading it again", "image", image.Reference(), "error", err)
			return false, id, ctx.Err()
		}
	}
	l.result.Outcome = Present
	return true, id, nil
}

// is tells whether an engine's identity is an image's: stores name it by its
// config or by its manifest, and no bytes are both.
func is(image *cache.Image, id v1.Hash) bool {
	return id == image.ConfigDigest() || id == image.Digest()
}

// bring lets the engine pull, where it can, or else sends what is missing, and
// everything if that does not do.
func (l *load) bring(ctx context.Context, tarball *cache.Tarball) error {
	image := tarball.Image
	there, before, err := l.isThere(ctx, image) // another may have loaded it meanwhile
	if there || err != nil {
		return err
	}
	if is(image, before) { // it cannot be used: that is nothing to go back to
		before = v1.Hash{}
	}
	if puller, ok := l.engine.(Puller); ok && !l.options.NoPull && !l.options.Whole && puller.Pulls(ctx) {
		err := l.pull(ctx, puller, tarball, before)
		if err == nil || errors.As(err, new(*sourceError)) || ctx.Err() != nil {
			return err
		}
		l.log.Info("the pull from loopback has failed: sending an archive", "image", image.Reference(), "error", err)
	}
	has := l.has(ctx, image)
	if len(has) > 0 {
		err := l.send(ctx, tarball, before, func(layer v1.Hash) bool { return has[layer] })
		if err == nil {
			l.result.Outcome = Delta
			return nil
		}
		if errors.As(err, new(*sourceError)) || ctx.Err() != nil {
			return err // the whole would fail alike
		}
		l.log.Warn("the engine does not take the archive without the layers that it has: sending all of it", "image", image.Reference(), "error", err)
	}
	if err := l.send(ctx, tarball, before, nil); err != nil {
		return err
	}
	l.result.Outcome = Loaded
	return nil
}

// has returns the layers that can be left out, nil if there are none.
func (l *load) has(ctx context.Context, image *cache.Image) map[v1.Hash]bool {
	if l.options.Whole {
		return nil
	}
	has, err := l.engine.Has(ctx, image)
	if err != nil {
		l.log.Warn("the engine does not tell which layers it has: sending all of them", "image", image.Reference(), "error", err)
		return nil
	}
	for _, there := range has {
		if there {
			return has
		}
	}
	return nil
}

// send sends an archive and proves what came of it. If that is not the image, the
// reference names again what it did before.
func (l *load) send(ctx context.Context, tarball *cache.Tarball, before v1.Hash, omit func(v1.Hash) bool) error {
	archive, err := tarball.Archive(omit)
	if err != nil {
		return err
	}
	body := &source{total: archive.Size(), tell: l.options.Progress}
	r, proof := l.open(ctx, archive, body)
	err = l.engine.Load(ctx, body, archive.Size())
	done, failed := body.end()
	_ = r.Close()
	l.result.Streamed += done
	if failed == nil {
		failed = proof(err == nil)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		err = context.Cause(ctx)
	case failed != nil:
		err = failed
	}
	if err == nil {
		err = l.prove(ctx, tarball.Image)
	}
	if err != nil {
		l.undo(ctx, tarball.Image, before)
	}
	return err
}

// open opens an archive for the engine, as its body reads it. proof returns why its
// layers are not right, if all was sent, or the engine says that it has loaded it; it
// is for when the load and the body have ended.
func (l *load) open(ctx context.Context, archive *cache.Archive, body *source) (r io.ReadCloser, proof func(loaded bool) error) {
	engine, ok := l.engine.(LayerProver)
	// From a file server it would come twice.
	if !ok || !archive.IsLocal() || !engine.ProvesLayers(ctx) {
		r = archive.Open(ctx)
		body.r = r
		return r, func(bool) error { return nil }
	}
	r = archive.OpenUnproven(ctx)
	proven := make(chan error, 1)
	sent := false
	body.r = r
	body.all = func() {
		sent = true
		go func() { proven <- archive.Prove(ctx) }()
	}
	return r, func(loaded bool) error {
		if !sent {
			if !loaded { // that is why
				return nil
			}
			body.all()
		}
		if err := <-proven; err != nil && ctx.Err() == nil {
			return &sourceError{err}
		}
		return nil
	}
}

// prove proves that the engine has what it was sent.
func (l *load) prove(ctx context.Context, image *cache.Image) error {
	id, err := l.named(ctx, image)
	if err != nil {
		return err
	}
	if err := l.engine.Prove(ctx, id); err != nil {
		return fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	return nil
}

// named proves that the reference names the image, and returns what the engine calls
// that.
func (l *load) named(ctx context.Context, image *cache.Image) (v1.Hash, error) {
	id, usable, err := l.engine.Find(ctx, image.Reference())
	switch {
	case err != nil:
		return id, err
	case id == v1.Hash{}:
		return id, fmt.Errorf("%w: nothing has the reference", ErrUnproven)
	case !usable:
		return id, fmt.Errorf("%w: image %s is incomplete", ErrUnproven, id)
	case !is(image, id):
		return id, fmt.Errorf("%w: the reference names %s, neither the config %s nor the manifest %s", ErrUnproven, id, image.ConfigDigest(), image.Digest())
	}
	return id, nil
}

// undoTime is how long an engine may take to put a reference right.
const undoTime = 30 * time.Second

// undo gives the reference back to what had it, or takes it away when that was
// nothing. That must not be left undone when ctx has ended.
func (l *load) undo(ctx context.Context, image *cache.Image, before v1.Hash) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	id, _, err := l.engine.Find(ctx, image.Reference())
	if err != nil || id != before {
		err = l.engine.Name(ctx, image.Reference(), before)
	}
	if err != nil && before != (v1.Hash{}) { // better nothing than what cannot be used
		err = errors.Join(err, l.engine.Name(ctx, image.Reference(), v1.Hash{}))
	}
	if err != nil {
		l.log.Warn("what the reference names after the failed load could not be put right", "image", image.Reference(), "error", err)
	}
}
