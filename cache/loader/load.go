package loader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/internal/wait"
)

// An Outcome is what [Load] has done.
type Outcome string

// The outcomes.
const (
	Present Outcome = "present"      // the engine had the image under its reference
	Loaded  Outcome = "loaded"       // it was sent the whole archive
	Delta   Outcome = "loaded-delta" // it was sent less, since it already had layers
)

// Result is what [Load] returns.
type Result struct {
	// Outcome is empty when the load failed.
	Outcome Outcome
	// Streamed is how many bytes the engine was sent, in all attempts.
	Streamed int64
	// Total is the size of the tarball in bytes.
	Total int64
}

// Options of [Load]. The zero value of each field works.
type Options struct {
	// Whole makes it send the whole archive, also when the engine has layers of it, or
	// would rather pull.
	Whole bool
	// NoPull makes it send an archive also to an engine that would rather pull.
	NoPull bool
	// LockDir is where the processes of a user that load the same image on one machine find
	// each other. Default: dockercache-load below XDG_RUNTIME_DIR, or
	// dockercache-load-UID below [os.TempDir], which no other user may open. Processes of
	// different users do not find each other, in no directory: who can open a lock can
	// hold it. What may go wrong with it costs only that two load the same.
	LockDir string
	// Progress, when not nil, is called with how much of what has to be sent was sent,
	// by one goroutine at a time. A second attempt begins again, with another total. An
	// engine that pulls may want less than the total: what it lacks only it knows.
	Progress func(tarball.Progress)
	// Unpacking, when not nil, is called with the progress of the phase
	// [tarball.Unpacking], from when an engine has all that it was sent, or asks for
	// nothing more for now. It and Progress are called by one goroutine at a time.
	Unpacking func(tarball.Progress)
	// Observer, when not nil, is notified of what Load does, see the phases of [timing]. The last phase
	// has ended when Load returns.
	Observer timing.Observer
	// Logger logs what went otherwise than expected. Default: silent.
	Logger *slog.Logger
}

// Load ensures that the engine has the tarball's image, tagged with its reference.
//
// Of several processes of a user that load the same image into the same engine, on one
// machine, one does and the others wait for it, for 15 minutes at most.
//
// The result is never nil. The error wraps [ErrEngine], [ErrUnreachable],
// [ErrUnsupported] or [ErrNotLoaded], [tarball.ErrDigest] when the tarball is damaged, or
// is that of reading it, or of ctx. After an error the reference names what it did before,
// unless that is an image of which the engine reports that it cannot be used: then
// nothing, as far as the engine still answers.
func Load(ctx context.Context, engine Engine, t *tarball.Tarball, o *Options) (*Result, error) {
	if engine == nil || t == nil || t.Layout == nil {
		return &Result{}, errors.New("load: an engine and a tarball are required")
	}
	if o == nil {
		o = &Options{}
	}
	defer timing.End(o.Observer)
	l := newLoad(engine, t, o)
	if err := l.run(ctx); err != nil {
		l.result.Outcome = ""
		return l.result, fmt.Errorf("load %s: %w", l.image.Reference(), err)
	}
	return l.result, nil
}

// load is one call of Load.
type load struct {
	engine  Engine
	tarball *tarball.Tarball
	image   *tarball.Image
	options *Options
	log     *slog.Logger
	connect time.Duration // how long an engine may take to ask for what it is to pull
	result  *Result
	// doubtful: that the image under the reference cannot be used is not the engine's word
	// about the image, but that it could not find out.
	doubtful bool
}

func newLoad(engine Engine, t *tarball.Tarball, o *Options) *load {
	l := &load{engine: engine, tarball: t, image: t.Image, options: o, log: o.Logger, connect: connectTimeout, result: &Result{Total: t.Layout.Size()}}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	return l
}

func (l *load) run(ctx context.Context) error {
	if present, _, err := l.isPresent(ctx); present || err != nil {
		return err
	}
	id, err := l.engine.ID(ctx)
	if err != nil {
		return err
	}
	timing.Begin(l.options.Observer, timing.Lock)
	unlock, err := lock(ctx, l.options.LockDir, id+" "+l.image.Reference(), l.log)
	if err != nil {
		return err
	}
	defer unlock()
	return l.transfer(ctx)
}

// isPresent reports whether the engine has the image, and what has its reference.
func (l *load) isPresent(ctx context.Context) (bool, v1.Hash, error) {
	timing.Begin(l.options.Observer, timing.Find)
	id, state, err := l.engine.Find(ctx, l.image.Reference())
	if err != nil || !is(l.image, id) || state == Incomplete {
		return false, id, err
	}
	// Stores that name an image by its config keep no incomplete ones.
	if state == Unknown && id != l.image.ConfigDigest() {
		timing.Begin(l.options.Observer, timing.Verify)
		if err := l.engine.Verify(ctx, id); err != nil {
			l.log.WarnContext(ctx, "the image is there and cannot be used: loading it again", "image", l.image.Reference(), "error", err)
			l.doubtful = errors.Is(err, ErrUnreachable) || strings.Contains(err.Error(), noSpace)
			return false, id, wait.Err(ctx)
		}
	}
	l.result.Outcome = Present
	return true, id, nil
}

// noSpace is in the answer of an engine whose disk is full (ENOSPC). Then it can create no
// container of an image that is whole either.
const noSpace = "no space left on device"

// is reports whether an engine's identity is an image's: stores name it by its
// config or by its manifest, and no bytes are both.
func is(image *tarball.Image, id v1.Hash) bool {
	return id == image.ConfigDigest() || image.Is(id)
}

// transfer lets the engine pull, where it can, or else sends what is missing, and
// everything if that does not do.
func (l *load) transfer(ctx context.Context) error {
	present, before, err := l.isPresent(ctx) // another process may have loaded it meanwhile
	if present || err != nil {
		return err
	}
	if is(l.image, before) && !l.doubtful { // it cannot be used: that is nothing to go back to
		before = v1.Hash{}
	}
	has := sync.OnceValue(func() map[v1.Hash]bool { return l.has(ctx) })
	if err := l.checkZstd(ctx, has); err != nil {
		return err
	}
	name := l.image.Reference()
	if puller, ok := l.engine.(Puller); ok && !l.options.NoPull && !l.options.Whole && puller.Pulls(ctx) {
		err := l.pull(ctx, puller, before)
		if err == nil || errors.As(err, new(*readError)) || ctx.Err() != nil {
			return err
		}
		l.log.InfoContext(ctx, "the pull from loopback has failed: sending an archive", "image", name, "error", err)
	}
	if !l.options.Whole && len(has()) > 0 {
		err := l.send(ctx, before, func(layer v1.Hash) bool { return has()[layer] })
		if err == nil {
			l.result.Outcome = Delta
			return nil
		}
		if errors.As(err, new(*readError)) || ctx.Err() != nil {
			return err // the whole would fail alike
		}
		l.log.WarnContext(ctx, "the engine does not take the archive without the layers that it already has: sending all of it", "image", name, "error", err)
	}
	if err := l.send(ctx, before, nil); err != nil {
		return err
	}
	l.result.Outcome = Loaded
	return nil
}

// has returns the layers that can be left out, nil if there are none.
func (l *load) has(ctx context.Context) map[v1.Hash]bool {
	has, err := l.engine.Has(ctx, l.image)
	if err != nil {
		l.log.WarnContext(ctx, "the engine does not say which layers it has: sending all of them", "image", l.image.Reference(), "error", err)
		return nil
	}
	for _, there := range has {
		if there {
			return has
		}
	}
	return nil
}

// send sends an archive and verifies the result. If that is not the image, the
// reference names again what it did before.
func (l *load) send(ctx context.Context, before v1.Hash, omit func(v1.Hash) bool) error {
	name := l.image.Reference()
	sentAs := name
	early, ok := l.engine.(EarlyNamer)
	if staged := ok && early.NamesEarly(ctx); staged {
		sentAs = "localhost/" + pulledAs + ":" + randomTag()
	}
	archive, err := l.tarball.ArchiveAs(sentAs, omit)
	if err != nil {
		return err
	}
	u := newUnpacking(l.options.Unpacking, archive)
	b := &body{total: archive.Size(), progress: l.options.Progress, sent: func() {
		timing.Begin(l.options.Observer, timing.Engine)
		u.begin()
	}}
	timing.Begin(l.options.Observer, timing.Stream)
	r, verified := l.open(ctx, archive, b)
	err = u.engine(l.engine).Load(ctx, b, archive.Size())
	u.end()
	sent, failed := b.end()
	_ = r.Close()
	l.result.Streamed += sent
	timing.Begin(l.options.Observer, timing.Verify)
	if failed == nil {
		failed = verified(err == nil)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		err = wait.Err(ctx)
	case failed != nil:
		err = failed
	}
	if err == nil {
		err = l.accept(ctx, sentAs)
	}
	if sentAs != name {
		l.untag(ctx, sentAs)
	}
	if err != nil {
		l.undo(ctx, before)
	}
	return err
}

// open opens an archive for the engine, as its body reads it. verified returns why its
// layers are not right, if all was sent, or the engine reports that it has loaded it; it
// is for when the load and the body have ended.
func (l *load) open(ctx context.Context, archive *tarball.Archive, b *body) (r io.ReadCloser, verified func(loaded bool) error) {
	engine, ok := l.engine.(LayerVerifier)
	// From a file server it would come twice.
	if !ok || !archive.IsLocal() || !engine.VerifiesLayers(ctx) {
		r = archive.Open(ctx)
		b.r = r
		return r, func(bool) error { return nil }
	}
	r = archive.OpenUnverified(ctx)
	result := make(chan error, 1)
	sent := false
	b.r = r
	b.all = func() {
		sent = true
		go func() { result <- archive.Verify(ctx) }()
	}
	return r, func(loaded bool) error {
		if !sent {
			if !loaded { // that is why
				return nil
			}
			b.all()
		}
		if err := <-result; err != nil && ctx.Err() == nil {
			return &readError{err}
		}
		return nil
	}
}

// accept verifies that the engine has the image under the name that it was sent or pulled
// by, and gives it its reference, if that is another.
func (l *load) accept(ctx context.Context, name string) error {
	timing.Begin(l.options.Observer, timing.Verify)
	id, err := l.named(ctx, name)
	if err != nil {
		return err
	}
	if err := l.engine.Verify(ctx, id); err != nil {
		return fmt.Errorf("%w: %w", ErrNotLoaded, err)
	}
	reference := l.image.Reference()
	if name == reference {
		return nil
	}
	// This is not cut off: ctr takes a reference from one image before it gives it to another.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := l.engine.Name(ctx, reference, id); err != nil {
		return err
	}
	_, err = l.named(ctx, reference)
	return err
}

// named verifies that a reference names the image, and returns what the engine calls
// that.
func (l *load) named(ctx context.Context, reference string) (v1.Hash, error) {
	id, state, err := l.engine.Find(ctx, reference)
	switch {
	case err != nil:
		return id, err
	case id == v1.Hash{}:
		return id, fmt.Errorf("%w: nothing has the reference %s", ErrNotLoaded, reference)
	case !is(l.image, id):
		return id, fmt.Errorf("%w: %s names %s, neither the config %s nor the manifest %s", ErrNotLoaded, reference, id, l.image.ConfigDigest(), l.image.Digest())
	case state == Incomplete:
		return id, fmt.Errorf("%w: image %s is incomplete", ErrNotLoaded, id)
	}
	return id, nil
}

// undoTimeout is how long an engine may take to put a reference right.
const undoTimeout = 30 * time.Second

// undo gives the reference back to what had it, or removes it when that was
// nothing. That must not be left undone when ctx has ended.
func (l *load) undo(ctx context.Context, before v1.Hash) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	name := l.image.Reference()
	id, _, err := l.engine.Find(ctx, name)
	if err != nil || id != before {
		err = l.engine.Name(ctx, name, before)
	}
	if err != nil && before != (v1.Hash{}) { // better nothing than what cannot be used
		err = errors.Join(err, l.engine.Name(ctx, name, v1.Hash{}))
	}
	if err != nil {
		l.log.WarnContext(ctx, "what the reference names after the failed load could not be put right", "image", name, "error", err)
	}
}

// A body is the archive as an engine reads it. It counts, and keeps its own
// failure apart from the engine's: with the same bytes a second attempt fails too.
type body struct {
	r        io.Reader
	total    int64
	progress func(tarball.Progress) // nil: none
	all      func()                 // is called when all of it was read; nil: none
	sent     func()                 // the same

	mu    sync.Mutex // net/http may still read when it has returned
	done  int64
	err   error
	ended bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended { // no progress is reported any more
		return 0, os.ErrClosed
	}
	b.done += int64(n)
	if b.all != nil && b.done == b.total {
		b.all()
		b.all = nil
	}
	if err != nil && err != io.EOF && !errors.Is(err, os.ErrClosed) {
		b.err = &readError{err}
	}
	if b.progress != nil && n > 0 {
		b.progress(tarball.Progress{Done: b.done, Total: b.total})
	}
	if b.sent != nil && b.done == b.total {
		b.sent()
		b.sent = nil
	}
	return n, err
}

// end ends the reading. It returns how many bytes were read, and the error that has
// ended it before, if any.
func (b *body) end() (done int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	return b.done, b.err
}

// readError is the tarball's.
type readError struct{ err error }

func (e *readError) Error() string { return "read the tarball: " + e.err.Error() }
func (e *readError) Unwrap() error { return e.err }
