package loader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
)

// A Puller is an [Engine] that can also pull, from a registry that [Load] serves on
// loopback. What the engine has already it does not ask for; that is its own doing,
// where an archive without it relies on what no engine documents.
type Puller interface {
	Engine
	// Pulls tells whether that is the better road with this engine, and it is on this
	// machine.
	Pulls(ctx context.Context) bool
	// Pull makes the engine pull HOST:PORT/REPOSITORY:TAG, without TLS, and keep it
	// under that name.
	Pull(ctx context.Context, reference string) error
}

// reachTime is how long an engine may take to ask the registry that it was told to
// pull from for anything. On loopback it asks at once, or never: in a network of its
// own.
const reachTime = 10 * time.Second

var errNotAsked = errors.New("the engine has not asked the registry on loopback for anything: is it in another network namespace?")

// pull lets the engine pull, and proves what came of it. If that is not the image,
// the reference names again what it did before.
func (l *load) pull(ctx context.Context, engine Puller, tarball *cache.Tarball, before v1.Hash) error {
	r, err := serve(tarball, l.options.Progress)
	if err != nil {
		return err
	}
	pulling, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	reached := time.AfterFunc(l.reach, func() {
		if !r.asked() {
			cancel(errNotAsked)
		}
	})
	err = engine.Pull(pulling, r.reference)
	reached.Stop()
	sent, layers, failed := r.end()
	l.result.Streamed += sent
	switch {
	case err != nil && ctx.Err() != nil:
		err = context.Cause(ctx)
	case err != nil && failed != nil: // else the engine has asked again, and got it
		err = failed
	case err == nil && !r.asked(): // so it was another registry, on another machine
		err = errNotAsked
	}
	named := err == nil
	if named {
		err = l.rename(ctx, tarball.Image, r.reference)
	}
	l.forget(ctx, r.reference)
	if err == nil {
		_, err = l.named(ctx, tarball.Image)
	}
	if err == nil {
		l.result.Outcome = Loaded
		if layers < layerBytes(tarball.Image) {
			l.result.Outcome = Delta
		}
		return nil
	}
	if named {
		l.undo(ctx, tarball.Image, before)
	}
	return err
}

// rename proves what was pulled and gives it the image's reference.
func (l *load) rename(ctx context.Context, image *cache.Image, from string) error {
	id, usable, err := l.engine.Find(ctx, from)
	switch {
	case err != nil:
		return err
	case !is(image, id):
		return fmt.Errorf("%w: it has pulled %s, neither the config %s nor the manifest %s", ErrUnproven, id, image.ConfigDigest(), image.Digest())
	case !usable:
		return fmt.Errorf("%w: image %s is incomplete", ErrUnproven, id)
	}
	if err := l.engine.Prove(ctx, id); err != nil {
		return fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	return l.engine.Name(ctx, image.Reference(), id)
}

// forget takes the name away that was only for the pull.
func (l *load) forget(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	id, _, err := l.engine.Find(ctx, name)
	if err == nil && id != (v1.Hash{}) {
		err = l.engine.Name(ctx, name, v1.Hash{})
	}
	if err != nil {
		l.log.Warn("the name that an image was pulled by could not be taken away", "name", name, "error", err)
	}
}

// layerBytes returns how many bytes of layers there are, each once.
func layerBytes(image *cache.Image) (total int64) {
	seen := map[v1.Hash]bool{}
	for _, d := range image.Layers() {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			total += d.Size
		}
	}
	return total
}

// Pulls implements [Puller]. Measured (BENCHMARKS.md): with containerd's store, and
// with podman, pulling is faster than loading, since layers are unpacked while others
// come; with Docker's classic store it is slower.
func (d *Docker) Pulls(ctx context.Context) bool {
	// Elsewhere an engine on a socket is in a virtual machine.
	if runtime.GOOS != "linux" || !strings.HasPrefix(d.host.Address, "unix:") {
		return false
	}
	about, err := d.about(ctx)
	return err == nil && (about.podman || about.containerd)
}

// Pull implements [Puller]. Docker speaks to 127.0.0.0/8 without TLS by default;
// podman has to be told, which its API of Docker's kind has no word for.
func (d *Docker) Pull(ctx context.Context, reference string) error {
	path := "/images/create"
	i := strings.LastIndex(reference, ":")
	query := url.Values{"fromImage": {reference[:i]}, "tag": {reference[i+1:]}}
	if d.podman {
		path, query = libpodPath+"/images/pull", url.Values{"reference": {reference}, "tlsVerify": {"false"}}
	}
	resp, err := d.do(ctx, http.MethodPost, path, query, nil, 0, "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return readStream(ctx, resp.Body)
}

// Pulls implements [Puller].
func (c *Containerd) Pulls(context.Context) bool { return runtime.GOOS == "linux" }

// Pull implements [Puller].
func (c *Containerd) Pull(ctx context.Context, reference string) error {
	// It paints its progress, which is no use here and has no end.
	return c.exec(ctx, nil, io.Discard, "images", "pull", "--plain-http", reference)
}
