package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/dockercache/dockercache/internal/imagespec"
	"github.com/dockercache/dockercache/internal/refname"
	"github.com/dockercache/dockercache/internal/wait"
)

// maxConfig is the largest image config that is read, in bytes. The largest
// seen have some 100 KiB.
const maxConfig = 16 << 20

// Resolve looks up the image for a platform under the first of the references
// that has it: mirrors first, the image's own registry last. It makes one request,
// after those of the login, for what the reference names: an index or a manifest.
// A caller who has the image with its digest already needs no more; otherwise
// [Resolved.Content] or [Resolved.Image] go on.
//
// An index is resolved to the manifest that is nearest to the platform, by the rules of
// containerd (platforms.Only in https://github.com/containerd/platforms): its own variant,
// else the nearest one below that runs there, and never one that needs more than was
// asked for; the first of equals. An entry that states no platform is taken if no other
// fits; to see what it is, it and its config are asked for, and so is an index
// within the index, at most two levels deep. A manifest that is not in an index is
// taken as it is, whatever its platform. The zero platform means [DefaultPlatform]. A
// reference without tag and digest means the tag "latest".
//
// A source that failed three times in a row, or that did not answer here, is asked
// after the others for 30 s, and for longer each time, up to 5 min; until then
// Resolve passes it over, unless it is the last. With [Options.MirrorsMustAgree]
// the last reference is asked too.
//
// The error joins one [*Error] for each reference that was tried.
func (c *Client) Resolve(ctx context.Context, platform v1.Platform, references ...string) (*Resolved, error) {
	if c == nil || c.repositories == nil {
		return nil, errors.New("resolve: the client was not made by New")
	}
	if len(references) == 0 {
		return nil, errors.New("resolve: no reference was given")
	}
	if platform.Equals(v1.Platform{}) {
		platform = DefaultPlatform()
	}
	s := search{client: c, platform: platform, references: slices.Clone(references)}
	if err := s.from(ctx, 0); err != nil {
		return nil, err
	}
	return &Resolved{turn: make(chan struct{}, 1), search: s}, nil
}

// Image is [Client.Resolve] and [Resolved.Image].
func (c *Client) Image(ctx context.Context, platform v1.Platform, references ...string) (*Image, error) {
	resolved, err := c.Resolve(ctx, platform, references...)
	if err != nil {
		return nil, err
	}
	return resolved.Image(ctx)
}

// Manifest returns what a reference names, byte by byte: an index or a manifest. It makes
// one request, after those of the login. mediaType is what it states itself, or else what
// it was served as. For an image of one platform see [Client.Resolve].
//
// The error is an [*Error], or that of ctx.
func (c *Client) Manifest(ctx context.Context, ref string) (raw []byte, mediaType types.MediaType, err error) {
	if c == nil || c.repositories == nil {
		return nil, "", errors.New("read manifest: the client was not made by New")
	}
	named, r, err := c.parse(ref)
	if err != nil {
		return nil, "", err
	}
	m, err := r.manifest(ctx, tagOrDigest(named))
	r.resolved(ctx, err)
	if err != nil {
		return nil, "", c.newError(ctx, "read manifest", named.String(), err)
	}
	return m.raw, m.mediaType, nil
}

// errNotResolved is for an image that the zero value or nil stands for, such as one of
// which the error was ignored.
var errNotResolved = &Error{Op: "read", Source: "nothing", Kind: ErrInvalidReference, Err: errors.New("the image was not made by Client.Resolve")}

// A Resolved identifies an image: the reference that it was found at and the
// digest of its manifest. The rest is asked for when it is needed, once. It is
// safe for concurrent use.
type Resolved struct {
	turn chan struct{} // has an element while an attempt to load the image is in flight

	mu       sync.Mutex
	search   search // as far as it has succeeded
	image    *Image // nil until it is loaded
	attempts int    // how many attempts to load it have failed, apart from those that a context ended
	err      error  // of the last one
}

// Digest returns the digest of the platform's manifest, which identifies the
// image. It is what the registry says: its own bytes, or those of the index that
// lists it, are verified. [Resolved.Image] may change it.
func (r *Resolved) Digest() v1.Hash {
	if r == nil || r.turn == nil {
		return v1.Hash{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.search.digest()
}

// Source returns the complete reference that the image was found at.
// [Resolved.Image] may change it.
func (r *Resolved) Source() string {
	if r == nil || r.turn == nil {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.search.source()
}

// Indexes returns copies of the indexes through which the manifest was found, outermost
// first: the reference names the first one, each lists the next, and the last lists the
// manifest. It is nil if the reference names a manifest. [Resolved.Image] may change it.
func (r *Resolved) Indexes() [][]byte {
	if r == nil || r.turn == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return copies(r.search.indexes)
}

// Companions returns what the indexes of [Resolved.Indexes] list beside the image:
// attestations and signatures of it, and artifacts, as far as the indexes show what they
// are. The image is complete without them. [Resolved.Image] may change it.
func (r *Resolved) Companions() []Companion {
	if r == nil || r.turn == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.search.companions)
}

// Content returns copies of the manifest and config of [Resolved.Image].
func (r *Resolved) Content(ctx context.Context) (manifest, config []byte, err error) {
	image, err := r.Image(ctx)
	if err != nil {
		return nil, nil, err
	}
	return image.Manifest(), image.Config(), nil
}

// Image asks for the rest of the image, if it has not yet: the platform's
// manifest, if that was in an index, and the config. Both have the digests by which
// they were asked for. From then on only digests are asked for, so each of the
// references can be a source of blobs.
//
// Callers share one attempt, each as long as its context allows. After a failure
// the next call tries again. When the source does not serve manifest and config,
// the image is looked up under the references after it; so it may be another one
// than Digest was: then Digest and Source return what the image has.
func (r *Resolved) Image(ctx context.Context) (*Image, error) {
	if r == nil || r.turn == nil {
		return nil, errNotResolved
	}
	r.mu.Lock()
	image, attempts := r.image, r.attempts
	r.mu.Unlock()
	if image != nil {
		return image, nil
	}
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return nil, wait.Err(ctx)
	}
	r.mu.Lock()
	image, failed, err := r.image, r.attempts > attempts, r.err
	search := r.search
	r.mu.Unlock()
	switch {
	case image != nil:
		return image, nil
	case failed:
		return nil, err
	}
	image, err = search.image(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil && ctx.Err() == nil: // otherwise further sources may not have been asked
		r.search, r.image = search, image
	case ctx.Err() == nil: // otherwise a caller that waits makes an attempt of its own
		r.attempts++
		r.err = err
	}
	return image, err
}

// ReadRange is [Image.ReadRange] of [Resolved.Image].
func (r *Resolved) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	image, err := r.Image(ctx)
	if err != nil {
		return nil, err
	}
	return image.ReadRange(ctx, digest, offset, length)
}

// EachOrigin is [Image.EachOrigin] of [Resolved.Image]. It calls nothing as long as the
// image is not loaded: then ReadRange loads it.
func (r *Resolved) EachOrigin(digest v1.Hash, yield func(name, host string, parallel bool, wait time.Duration, read func(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error)) bool) {
	if image := r.loaded(); image != nil {
		image.EachOrigin(digest, yield)
	}
}

// Distrust is [Image.Distrust]. It does nothing as long as nothing was read.
func (r *Resolved) Distrust(digest v1.Hash) {
	if image := r.loaded(); image != nil {
		image.Distrust(digest)
	}
}

// Origins is [Image.Origins]; nil as long as nothing was read.
func (r *Resolved) Origins(digest v1.Hash) []string {
	if image := r.loaded(); image != nil {
		return image.Origins(digest)
	}
	return nil
}

func (r *Resolved) loaded() *Image {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.image
}

// A search is how far the search for an image has got. It is for one goroutine; a
// copy goes on by itself.
type search struct {
	client     *Client
	platform   v1.Platform
	references []string
	failed     sourceErrors // of the references before at

	at         int // the reference that has the image
	named      reference.Named
	repository *repository
	listing
}

func (s *search) source() string { return s.named.String() }

func (s *search) digest() v1.Hash {
	if s.manifest != nil {
		return s.manifest.digest
	}
	return s.listed.Digest
}

// from searches the references from a place on.
func (s *search) from(ctx context.Context, place int) error {
	for s.at = place; s.at < len(s.references); s.at++ {
		err := s.locate(ctx, s.references[s.at], s.at < len(s.references)-1)
		if err == nil {
			return s.mustAgree(ctx)
		}
		if err := s.failedWith(ctx, err); err != nil {
			return err
		}
	}
	return s.failed
}

// failedWith records why the present reference does not have the image. The error
// that it returns ends the search.
func (s *search) failedWith(ctx context.Context, err error) error {
	ref := refname.Printable(s.references[s.at])
	err = s.client.newError(ctx, "resolve", ref, err)
	if ctx.Err() != nil {
		return err
	}
	level := slog.LevelWarn
	if errors.Is(err, ErrNotFound) || s.at == len(s.references)-1 {
		level = slog.LevelInfo // nothing is wrong with the source, or the error is returned
	}
	s.client.log.Log(ctx, level, "source does not have the image", "source", ref, "error", err)
	s.failed = append(slices.Clip(s.failed), err)
	return nil
}

// locate asks for what a reference names. When there is an alternative, a registry
// that was down a moment ago is not waited for again.
func (s *search) locate(ctx context.Context, ref string, alternative bool) (err error) {
	if s.named, s.repository, err = s.client.parse(ref); err != nil {
		return err
	}
	r := s.repository
	if err := r.health.asideFor(); err != nil && alternative {
		return &asideError{err}
	}
	defer func() { r.resolved(ctx, err) }()
	s.listing = listing{}
	m, err := r.manifest(ctx, tagOrDigest(s.named))
	if err != nil {
		return err
	}
	if !m.mediaType.IsIndex() {
		s.manifest = m
		return nil
	}
	found, err := (&finder{repository: r, want: s.platform}).find(ctx, m)
	if err != nil {
		return err
	}
	s.listing = *found
	return nil
}

func tagOrDigest(named reference.Named) string {
	if d, ok := named.(reference.Digested); ok {
		return d.Digest().String()
	}
	return named.(reference.Tagged).Tag() // of TagNameOnly
}

// mustAgree fails unless the image's own registry has the same image, if that is
// required.
func (s *search) mustAgree(ctx context.Context) error {
	last := len(s.references) - 1
	if !s.client.options.MirrorsMustAgree || s.at == last {
		return nil
	}
	own := refname.Printable(s.references[last])
	op := "compare " + s.source() + " with"
	there := &search{client: s.client, platform: s.platform}
	if err := there.locate(ctx, s.references[last], false); err != nil {
		err = s.client.newError(ctx, "resolve", own, err)
		if ctx.Err() != nil {
			return err
		}
		return &Error{Op: op, Source: own, Kind: ErrDisagree, Err: err}
	}
	if there.digest() != s.digest() {
		return &Error{Op: op, Source: own, Kind: ErrDisagree,
			Err: fmt.Errorf("the mirror has %s, its own registry %s", s.digest(), there.digest())}
	}
	return nil
}

// image loads the image from the present reference, or else from one after it.
func (s *search) image(ctx context.Context) (*Image, error) {
	for {
		image, err := s.load(ctx)
		s.repository.resolved(ctx, err)
		if err == nil {
			s.addOthers(ctx, image)
			return image, nil
		}
		if err := s.failedWith(ctx, err); err != nil {
			return nil, err
		}
		if err := s.from(ctx, s.at+1); err != nil {
			return nil, err
		}
	}
}

func (s *search) load(ctx context.Context) (*Image, error) {
	r, source := s.repository, s.source()
	if s.manifest == nil {
		m, err := r.listed(ctx, s.listed)
		if err != nil {
			return nil, err
		}
		s.manifest = m
	}
	parsed, err := imagespec.Manifest(s.manifest.raw)
	if err != nil {
		return nil, documentError("read manifest", source, err)
	}
	config := s.config
	if config == nil {
		if config, err = r.readBlob(ctx, "config", parsed.Config, maxConfig); err != nil {
			return nil, err
		}
	}
	file, err := imagespec.Config(config)
	if err != nil {
		return nil, documentError("read config "+parsed.Config.Digest.String()+" of", r.name, err)
	}
	image := &Image{source: source, manifest: *s.manifest, indexes: s.indexes, config: config, repositories: []*repository{r}, sizes: map[v1.Hash]int64{}}
	for _, d := range append(parsed.Layers, parsed.Config) {
		image.sizes[d.Digest] = d.Size
	}
	// Only an index says what a manifest is for before it is fetched, so a
	// manifest alone passes; a caller who wants another platform is warned.
	if have := file.Platform; have.OS != "" || have.Architecture != "" {
		if _, runs := distance(have, s.platform); !runs {
			r.log.WarnContext(ctx, "the image is for another platform", "source", image.source, "platform", have.String(), "wanted", s.platform.String())
		}
	}
	r.log.InfoContext(ctx, "resolved", "source", image.source, "digest", image.Digest().String())
	return image, nil
}

// addOthers adds further sources: the references after the one that an image was
// resolved at, and last those before it that gave no answer, for they may be back
// before the last layer is read. One that is malformed is no source; it would have
// failed had it been needed.
func (s *search) addOthers(ctx context.Context, image *Image) {
	others := slices.Clone(s.references[s.at+1:])
	for i, err := range s.failed {
		if errors.Is(err, ErrUnreachable) {
			others = append(others, s.references[i])
		}
	}
	for _, ref := range others {
		if _, r, err := s.client.parse(ref); err == nil && !slices.Contains(image.repositories, r) {
			image.repositories = append(image.repositories, r)
			if s.client.options.AllSources {
				image.confirm(ctx, r)
			}
		}
	}
}
