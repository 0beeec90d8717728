package loader

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/server"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/internal/wait"
)

// connectTimeout is how long an engine may take to ask the registry that it is to
// pull from for anything. On loopback it asks at once, or never: in a network of its
// own.
const connectTimeout = 10 * time.Second

var errNotAsked = errors.New("the engine has not asked the registry on loopback for anything: is it in another network namespace?")

// pull lets the engine pull, and verifies the result. If that is not the image,
// the reference names again what it did before.
func (l *load) pull(ctx context.Context, engine Puller, before v1.Hash) error {
	timing.Begin(l.options.Observer, timing.Stream)
	r, err := serve(l.tarball, l.options)
	if err != nil {
		return err
	}
	pulling, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(l.connect, func() {
		if !r.asked() {
			cancel(errNotAsked)
		}
	})
	err = engine.Pull(pulling, r.reference)
	timer.Stop()
	sent, layers, failed := r.end()
	l.result.Streamed += sent
	switch {
	case err != nil && ctx.Err() != nil:
		err = wait.Err(ctx)
	case err != nil && failed != nil: // else the engine has asked again, and got it
		err = failed
	case err == nil && !r.asked(): // so it was another registry, on another machine
		err = errNotAsked
	}
	named := err == nil
	if named {
		err = l.accept(ctx, r.reference)
	}
	l.untag(ctx, r.reference)
	if err == nil {
		l.result.Outcome = Loaded
		if layers < layerBytes(l.image) {
			l.result.Outcome = Delta
		}
		return nil
	}
	if named {
		l.undo(ctx, before)
	}
	return err
}

// untag removes the name that was only for the pull, or the archive.
func (l *load) untag(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	id, _, err := l.engine.Find(ctx, name)
	if err == nil && id != (v1.Hash{}) {
		err = l.engine.Name(ctx, name, v1.Hash{})
	}
	if err != nil {
		l.log.WarnContext(ctx, "the name that an image was loaded by could not be removed", "name", name, "error", err)
	}
}

// layerBytes returns how many bytes of layers there are, each once.
func layerBytes(image *tarball.Image) (total int64) {
	seen := map[v1.Hash]bool{}
	for _, d := range image.Layers() {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			total += d.Size
		}
	}
	return total
}

// pulledAs is the repository that a tarball is served as. Always the same: containerd
// records with each layer the repositories that it came from.
const pulledAs = "dockercache/image"

// randomTag returns a tag that no other process knows or will make.
func randomTag() string { return strings.ToLower(rand.Text()) }

// A registry serves one tarball on loopback, to one engine. It counts what was sent,
// and keeps the tarball's failures apart from the engine's.
type registry struct {
	// reference is what the engine is to pull. Its tag is a secret: other users of the
	// machine can reach the port too. A client that knows a digest can ask for that.
	reference string
	server    http.Server
	total     int64
	progress  func(tarball.Progress) // nil: none
	unpacking func(tarball.Progress) // nil: none
	observer  timing.Observer        // nil: none

	mu        sync.Mutex
	requests  int
	answering int // requests that are being answered
	sent      int64
	layers    int64 // of sent, those of blobs but the config's
	err       error
	ended     bool
}

func serve(t *tarball.Tarball, o *Options) (*registry, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	tag := randomTag()
	r := &registry{
		reference: listener.Addr().String() + "/" + pulledAs + ":" + tag,
		total:     t.Layout.Size(), progress: o.Progress, unpacking: o.Unpacking, observer: o.Observer,
	}
	config := "/" + t.Image.ConfigDigest().String()
	images := server.NewSingle(t, pulledAs, tag, &server.Options{Failed: r.failed})
	r.server = http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			r.mu.Lock()
			r.requests++
			if r.answering++; r.answering == 1 && !r.ended {
				timing.Begin(r.observer, timing.Stream)
			}
			r.mu.Unlock()
			defer r.answered()
			layer := strings.Contains(req.URL.Path, "/blobs/") && !strings.HasSuffix(req.URL.Path, config)
			images.ServeHTTP(&meter{w, r, layer}, req)
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // of clients that are no such
	}
	go func() { _ = r.server.Serve(listener) }() // ends with ErrServerClosed
	return r, nil
}

func (r *registry) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errors.Join(r.err, err)
}

// answered ends the answer to a request. When the engine has layers and asks for nothing
// more, for now, it unpacks; how far it is it does not report in bytes.
func (r *registry) answered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answering--; r.answering > 0 || r.layers == 0 || r.ended {
		return
	}
	timing.Begin(r.observer, timing.Engine)
	if r.unpacking != nil {
		r.unpacking(tarball.Progress{Phase: tarball.Unpacking})
	}
}

// asked reports whether there was a request.
func (r *registry) asked() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests > 0
}

// end ends the serving. It returns how many bytes were sent, how many of them are of
// layers, and what kept the tarball from being read, if anything.
func (r *registry) end() (sent, layers int64, err error) {
	_ = r.server.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true // no progress is reported any more
	if r.err != nil {
		err = &readError{r.err}
	}
	return r.sent, r.layers, err
}

// meter counts what an answer has.
type meter struct {
	http.ResponseWriter
	registry *registry
	layer    bool
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.ResponseWriter.Write(p)
	r := m.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent += int64(n)
	if m.layer {
		r.layers += int64(n)
	}
	if r.progress != nil && !r.ended {
		r.progress(tarball.Progress{Done: min(r.sent, r.total), Total: r.total})
	}
	return n, err
}
