package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/singleflight"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/internal/imagespec"
	"github.com/dockercache/dockercache/internal/wait"
)

// An Upstream is where images are that are not stocked: their own registries. It must be
// safe for concurrent use.
type Upstream interface {
	// Allows reports whether images of a repository, by its complete name such as
	// ghcr.io/owner/image, may be asked for. It makes no request.
	Allows(repository string) bool
	// Manifest returns what a complete reference names, a manifest or an index, byte by
	// byte, and its media type. It wraps [ErrNotFound] where there is none, or where it
	// is not to be had.
	Manifest(ctx context.Context, reference string) (raw []byte, mediaType types.MediaType, err error)
	// Stock stocks an image in the directory that is served, as [cache.Dir.Stock] does,
	// with the repository and the digest that are asked for. incoming is for
	// [cache.PutOptions]; without it nothing is served before all is stocked. An error is
	// as that of Manifest.
	Stock(ctx context.Context, image Missing, incoming func(*cache.Incoming)) (*cache.Result, error)
}

// ErrNotFound is wrapped by the errors of an [Upstream] for what is not there, or is no
// image: clients get 404. They get 502 for any other error.
var ErrNotFound = errors.New("not found")

// A Missing is an image that is asked for, and not stocked.
type Missing struct {
	// Repository is its complete name, such as docker.io/library/debian.
	Repository string
	// Digest is the manifest's.
	Digest v1.Hash
	// Tag is the one that the client asked for before, "" if it is not known.
	Tag string
	// Index is the digest of what the tag names, or the client asked for, when that is an
	// index, else zero. It lists the manifest, or an index that does.
	Index v1.Hash
	// Platform is what the index states of the manifest's platform, else zero.
	Platform v1.Platform
}

const (
	// tagFor is for how long a tag is believed to be what it was. Many nodes that ask at
	// once cost one request.
	tagFor = time.Minute
	// maxOriginals is how many manifests are remembered. Without its manifest a blob is
	// not found, and the client asks the registry itself.
	maxOriginals = 256
	// maxFills is how many images are fetched at a time, further ones wait.
	maxFills = 16
	// fillsWithin is how long the answer with a manifest waits for the first layer: an image
	// that cannot be fetched, or for which there is no space, is not promised. Another
	// process that is at work on the same image is not waited for.
	fillsWithin = 10 * time.Second
)

// filler brings images that are asked for and not stocked.
type filler struct {
	*server
	upstream Upstream
	context  context.Context // of all requests to the upstream, as they are for all clients
	cancel   context.CancelFunc
	asking   singleflight.Group // for manifests
	slots    chan struct{}

	mu        sync.Mutex
	group     sync.WaitGroup // of all fills
	closed    bool
	originals map[string]*original // by repository + "@" + digest, and repository + ":" + tag
	running   map[string]*fill     // by repository + "@" + digest of the manifest
}

func newFiller(s *server, upstream Upstream) *filler {
	f := &filler{server: s, upstream: upstream, slots: make(chan struct{}, maxFills), originals: map[string]*original{}, running: map[string]*fill{}}
	f.context, f.cancel = context.WithCancel(context.Background())
	return f
}

// An original is a manifest or an index, as it is in an image's own registry.
type original struct {
	Missing   // Digest is its own; of an index the rest is how what it lists is stocked
	raw       []byte
	mediaType types.MediaType
	entries   []imagespec.Entry // of an index
	blobs     []v1.Descriptor   // of a manifest: the config and the layers
	at        time.Time         // when it came
}

// A fill is an image that is being fetched.
type fill struct {
	ready    chan struct{} // closed when there is incoming
	incoming *cache.Incoming
	done     chan struct{} // closed when it has ended
	err      error
}

// close ends all fills, and waits until they have. What has come serves the next attempt.
func (f *filler) close() {
	f.cancel()
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.group.Wait()
}

// repository returns the repository that a question is about, "" if it may be about
// several, or about one that is not allowed.
func (f *filler) repository(q question) string {
	names := f.means(q)
	if q.ns != "" { // none has a repository whose name begins with its own
		names = names[len(names)-1:]
	}
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		named, err := reference.ParseNormalizedNamed(name)
		return err != nil || named.Name() != name
	})
	if len(names) != 1 || !f.upstream.Allows(names[0]) {
		return ""
	}
	return names[0]
}

// manifest serves a manifest that is not stocked, and begins to fetch the image. missing is the
// answer where there is none.
func (f *filler) manifest(w http.ResponseWriter, r *http.Request, repository, ref string, missing error) error {
	name := f.repository(ask(r, repository))
	if name == "" {
		return missing
	}
	o, err := f.original(r.Context(), name, ref)
	if err == nil && o.entries == nil && r.Method == http.MethodGet {
		err = f.begin(r.Context(), o)
	}
	if err != nil {
		return refusalOf(err, missing)
	}
	w.Header().Set("Content-Type", string(o.mediaType))
	w.Header().Set("Docker-Content-Digest", o.Digest.String())
	w.Header().Set("Etag", `"`+o.Digest.String()+`"`)
	serveContent(w, r, bytes.NewReader(o.raw))
	return nil
}

// refusalOf returns the answer for an error of the upstream.
func refusalOf(err, missing error) error {
	switch {
	case errors.Is(err, ErrNotFound):
		return missing
	case errors.Is(err, errUpstream):
		return errUpstream
	}
	return err
}

// original returns what a reference names in its own registry. Callers share a request.
func (f *filler) original(ctx context.Context, name, ref string) (*original, error) {
	key := name + joiner(ref) + ref
	if o := f.remembered(key); o != nil {
		return o, nil
	}
	asked := f.asking.DoChan(key, func() (any, error) { return f.askFor(name, ref, key) })
	select {
	case got := <-asked:
		if got.Err != nil {
			return nil, got.Err
		}
		return got.Val.(*original), nil
	case <-ctx.Done():
		return nil, wait.Err(ctx)
	}
}

// joiner is what stands between a repository, and a tag or a digest.
func joiner(ref string) string {
	if strings.Contains(ref, ":") {
		return "@"
	}
	return ":"
}

// askFor asks for what a reference names.
func (f *filler) askFor(name, ref, key string) (*original, error) {
	// Not what would be another reference, or none.
	if named, err := reference.ParseNormalizedNamed(key); err != nil || named.String() != key {
		return nil, fmt.Errorf("%w: %q is no reference", ErrNotFound, key)
	}
	raw, mediaType, err := f.upstream.Manifest(f.context, key)
	if err != nil {
		f.notFilled(key, err)
		return nil, errors.Join(errUpstream, err)
	}
	o := &original{raw: raw, mediaType: mediaType, at: time.Now()}
	digest := imagespec.DigestOf(raw)
	if joiner(ref) == "@" && digest.String() != ref {
		err = fmt.Errorf("its bytes have the digest %s", digest)
	} else if mediaType.IsIndex() {
		o.entries, err = imagespec.Index(raw)
		o.entries = slices.Clip(append([]imagespec.Entry{}, o.entries...)) // not nil
	} else {
		var m *v1.Manifest
		if m, err = imagespec.Manifest(raw); err == nil {
			o.blobs = append(slices.Clone(m.Layers), m.Config)
		}
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrNotFound, err)
		f.notFilled(key, err)
		return nil, err
	}
	o.Missing = f.origin(name, ref, digest)
	if o.Index == (v1.Hash{}) && o.entries != nil {
		o.Index = digest
	}
	f.remember(o, key)
	return o, nil
}

// origin returns how what has a digest is reached: by a tag, or through an index that was
// asked for before, or that is stocked.
func (f *filler) origin(name, ref string, digest v1.Hash) Missing {
	m := Missing{Repository: name, Digest: digest}
	if joiner(ref) == ":" {
		m.Tag = ref
		return m
	}
	listed := func(entries []imagespec.Entry, tag string, index v1.Hash) bool {
		i := slices.IndexFunc(entries, func(e imagespec.Entry) bool { return e.Digest == digest })
		if i < 0 {
			return false
		}
		m.Tag, m.Index = tag, index
		if p := entries[i].Platform; p != nil {
			m.Platform = *p
		}
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var newest *original
	for _, o := range f.originals {
		if o.Repository == name && (newest == nil || o.at.After(newest.at)) && listed(o.entries, o.Tag, o.Index) {
			newest = o
		}
	}
	if newest != nil {
		listed(newest.entries, newest.Tag, newest.Index)
		return m
	}
	if known, err := f.catalog.images(f.context, false); err == nil {
		for _, i := range known.names[name] {
			for _, x := range i.indexes {
				if listed(x.entries, i.tag, i.indexes[0].digest) {
					return m
				}
			}
		}
	}
	return m
}

// remember keeps an original, by its digest and by the reference that it was asked for by.
func (f *filler) remember(o *original, key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.originals) >= maxOriginals {
		oldest := ""
		for key, o := range f.originals {
			if oldest == "" || o.at.Before(f.originals[oldest].at) {
				oldest = key
			}
		}
		delete(f.originals, oldest)
	}
	f.originals[key] = o
	f.originals[o.Repository+"@"+o.Digest.String()] = o
}

// remembered returns an original that is still what its key names, nil if there is none.
func (f *filler) remembered(key string) *original {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.originals[key]
	if o != nil && !strings.Contains(key, "@") && time.Since(o.at) >= tagFor {
		return nil
	}
	return o
}

// begin begins to fetch an image, and waits until its layers come, or for as long as that
// may take. The error is why they do not.
func (f *filler) begin(ctx context.Context, o *original) error {
	running := f.isRunning(o)
	if running == nil {
		if known, err := f.catalog.images(ctx, true); err != nil || hasManifest(known.names[o.Repository], o.Digest) {
			return err // stocked under another tag, or just now
		}
		running = f.start(o)
	}
	timer := time.NewTimer(fillsWithin)
	defer timer.Stop()
	select {
	case <-running.done:
		return running.err
	case <-running.ready:
	case <-timer.C:
	case <-ctx.Done():
		return wait.Err(ctx)
	}
	return nil
}

func (f *filler) isRunning(o *original) *fill {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running[o.Repository+"@"+o.Digest.String()]
}

// start begins to fetch an image, unless another request has. It goes on when no client
// waits for it any more.
func (f *filler) start(o *original) *fill {
	key := o.Repository + "@" + o.Digest.String()
	f.mu.Lock()
	defer f.mu.Unlock()
	if running := f.running[key]; running != nil {
		return running
	}
	started := &fill{ready: make(chan struct{}), done: make(chan struct{})}
	if f.closed {
		started.err = errUpstream
		close(started.done)
		return started
	}
	f.running[key] = started
	f.counts.fillsRunning.Add(1)
	f.group.Go(func() {
		err := f.run(started, o)
		f.mu.Lock()
		delete(f.running, key) // it is in the directory by now, or is to be tried again
		f.mu.Unlock()
		f.counts.fillsRunning.Add(-1)
		if err != nil {
			f.counts.fillsFailed.Add(1)
			f.notFilled(key, err)
			started.err = errors.Join(errUpstream, err)
		} else {
			f.counts.fillsDone.Add(1)
		}
		close(started.done)
	})
	return started
}

// run fetches an image.
func (f *filler) run(running *fill, o *original) error {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-f.context.Done():
		return f.context.Err()
	}
	begun := time.Now()
	f.Logger.InfoContext(f.context, "fetching an image", "repository", o.Repository, "tag", o.Tag, "digest", o.Digest)
	result, err := f.upstream.Stock(f.context, o.Missing, func(in *cache.Incoming) {
		running.incoming = in
		close(running.ready)
	})
	if result != nil {
		f.counts.fetched.Add(result.Downloaded)
	}
	if err == nil {
		f.Logger.InfoContext(f.context, "fetched an image", "repository", o.Repository, "tag", o.Tag, "digest", o.Digest, "bytes", result.Downloaded, "took", time.Since(begun).Round(time.Millisecond))
	}
	return err
}

// notFilled reports why an image was not fetched.
func (f *filler) notFilled(what string, err error) {
	if f.context.Err() != nil {
		return
	}
	if errors.Is(err, ErrNotFound) {
		f.Logger.InfoContext(f.context, "an image is not fetched", "image", what, "error", err)
		return
	}
	f.Logger.WarnContext(f.context, "an image was not fetched", "image", what, "error", err)
	if f.Failed != nil {
		f.Failed(fmt.Errorf("fetch %s: %w", what, err))
	}
}

// blob returns a blob of an image that is being fetched, or is to be. missing is the error
// where there is none.
func (f *filler) blob(r *http.Request, repository string, digest v1.Hash, missing error) (io.ReadSeekCloser, error) {
	name := f.repository(ask(r, repository))
	o, size := f.holding(name, digest)
	if o == nil {
		return nil, missing
	}
	if r.Method == http.MethodHead {
		return &layer{size: size, done: func() {}}, nil // is not read
	}
	for range maxLooks {
		running := f.isRunning(o)
		if running == nil {
			// It may have been published since the directory was looked at.
			if content, err := f.find(r, repository, digest); !isMissing(err) {
				return content, err
			}
			running = f.start(o)
		}
		select {
		case <-running.ready:
		case <-running.done:
		case <-r.Context().Done():
			return nil, wait.Err(r.Context())
		}
		select {
		case <-running.done:
			if running.err != nil {
				return nil, refusalOf(running.err, missing)
			}
			if content, err := f.find(r, repository, digest); !isMissing(err) {
				return content, err
			}
			return nil, missing // stocked as another image
		default:
		}
		content, err := f.openIncoming(r.Context(), running.incoming, digest)
		if err == nil && content != nil {
			return content, nil
		}
		if r.Context().Err() != nil {
			return nil, wait.Err(r.Context())
		}
		if err == nil { // no layer of the image
			return nil, missing
		}
		// It has just ended: what is published is found.
		select {
		case <-running.done:
			if running.err != nil {
				return nil, refusalOf(running.err, missing)
			}
		case <-r.Context().Done():
		}
	}
	return nil, missing
}

// holding returns a manifest of a repository that lists a blob, and the blob's size; nil if
// none is remembered.
func (f *filler) holding(name string, digest v1.Hash) (found *original, size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.originals {
		if o.Repository != name {
			continue
		}
		i := slices.IndexFunc(o.blobs, func(d v1.Descriptor) bool { return d.Digest == digest })
		if i < 0 {
			continue
		}
		// One that is being fetched is there first.
		isRunning := f.running[o.Repository+"@"+o.Digest.String()] != nil
		if found == nil || isRunning || o.at.After(found.at) {
			found, size = o, o.blobs[i].Size
		}
		if isRunning {
			break
		}
	}
	return found, size
}

// openIncoming opens a blob of an image that is being fetched, when its first byte has come;
// nil if it has none of this digest.
func (f *filler) openIncoming(ctx context.Context, in *cache.Incoming, digest v1.Hash) (io.ReadSeekCloser, error) {
	if in.Image().ConfigDigest() == digest {
		return bytesCloser{bytes.NewReader(in.Image().Config())}, nil
	}
	i := slices.IndexFunc(in.Image().Layers(), func(l v1.Descriptor) bool { return l.Digest == digest })
	if i < 0 {
		return nil, nil
	}
	size := in.Image().Layers()[i].Size
	// An error before the first byte is an answer with a status.
	r, err := in.ReadRange(ctx, digest, 0, min(size, 1))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	}
	return &layer{ctx: ctx, source: in, done: func() {}, digest: digest, size: size}, nil
}

// isMissing reports whether an answer is that there is no such thing.
func isMissing(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.status == http.StatusNotFound
}
