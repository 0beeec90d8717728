package bucket

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/internal/refname"
	"github.com/dockercache/dockercache/internal/wait"
)

// put is one call of Put or Stock.
type put struct {
	cache.PutOptions
	bucket     *Bucket
	name, path string
	digest     v1.Hash
	reference  string
	indexes    [][]byte
	current    *object     // what has the name, when it was last looked at; nil: nothing
	relabel    bool        // it is the same, and of an older run
	damaged    string      // the ETag of what is known to be damaged
	repairs    string      // the ETag of what is repaired, if this is a repair
	newest     tarball.Run // of those that had the same image, where that is not Provenance.Run
	result     *cache.Result
}

func (b *Bucket) newPut(ctx context.Context, name string, o *cache.PutOptions) (*put, error) {
	if err := wait.Err(ctx); err != nil {
		return nil, err
	}
	path, err := b.tarballPath(name)
	if err != nil {
		return nil, err
	}
	p := &put{bucket: b, name: name, path: path, result: &cache.Result{Path: path}}
	if o != nil {
		p.PutOptions = *o
	}
	if err := p.PutOptions.Check(name); err != nil {
		return nil, err
	}
	return p, nil
}

// Stock is [Bucket.Put] for an image of which no more than the digest is known, as
// [cache.Dir.Stock] is: a tarball that is there already costs one request to the server.
func (b *Bucket) Stock(ctx context.Context, name, ref string, remote cache.Remote, o *cache.PutOptions) (*cache.Result, error) {
	if remote == nil {
		return &cache.Result{}, errors.New("stock: no image was given")
	}
	p, err := b.newPut(ctx, name, o)
	if err != nil {
		return &cache.Result{}, err
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return p.result, fmt.Errorf("%w: reference %q: %w", tarball.ErrInvalidImage, ref, err)
	}
	indexes := func() [][]byte {
		if i, ok := remote.(cache.Indexer); ok {
			return i.Indexes()
		}
		return nil
	}
	p.digest, p.reference, p.indexes = remote.Digest(), named.String(), indexes()
	p.result.Digest = p.digest
	defer timing.End(p.Observer)
	if done, err := p.isDone(ctx); done || err != nil {
		return p.result, err
	}
	timing.Begin(p.Observer, timing.Resolve)
	manifest, config, err := remote.Content(ctx)
	if err != nil {
		return p.result, err
	}
	img, err := tarball.NewImage(ref, manifest, config, indexes()...)
	if err != nil {
		return p.result, fmt.Errorf("%s: %w", remote.Source(), err)
	}
	if p.Provenance.Source == "" {
		p.Provenance.Source = remote.Source()
	}
	return p.result, p.run(ctx, img, remote)
}

// Put stocks img as the tarball called name, as [cache.Dir.Put] does: with its outcomes,
// options and errors. Of the options, Preempt has no effect: a newer build run does not wait for
// an older one's image, only for layers that both need and that are on their way. The older run
// finds the newer one's tarball when it is done, and ends with [cache.Superseded], and not with
// [cache.ErrPreempted].
//
// The layers come from other tarballs of the prefix that have them, copied by the server, and
// from src. Bytes of src are hashed in memory and sent in parts; nothing is written to this
// machine's disk. The object appears when all of it is there and verified, on the condition
// that what has the name is still what was looked at.
//
// What an attempt that was killed has sent is found by the next one for the same image and
// provenance, which goes on there. Another process that is stocking the same is waited for
// while it makes progress.
func (b *Bucket) Put(ctx context.Context, name string, img *tarball.Image, src tarball.Source, o *cache.PutOptions) (*cache.Result, error) {
	if img == nil || src == nil {
		return &cache.Result{}, errors.New("put: no image or no source was given")
	}
	p, err := b.newPut(ctx, name, o)
	if err != nil {
		return &cache.Result{}, err
	}
	p.digest, p.reference, p.indexes = img.Digest(), img.Reference(), img.Indexes()
	p.result.Digest = p.digest
	defer timing.End(p.Observer)
	if done, err := p.isDone(ctx); done || err != nil {
		return p.result, err
	}
	return p.result, p.run(ctx, img, src)
}

// isDone looks at what has the name, and reports whether nothing is to be done.
func (p *put) isDone(ctx context.Context) (bool, error) {
	timing.Begin(p.Observer, timing.Look)
	b := p.bucket
	current, err := b.head(ctx, p.name)
	if err != nil {
		return false, fmt.Errorf("stock %s: %w", p.name, err)
	}
	p.relabel = false
	if p.repairs != "" {
		return false, p.mayRepair(current)
	}
	if current != nil && current.identity == nil { // another program has stored it
		o, info, err := b.readInfo(ctx, p.name)
		switch {
		case errors.Is(err, tarball.ErrNotTarball):
		case err != nil:
			return false, fmt.Errorf("stock %s: %w", p.name, err)
		default:
			current = o
			current.identity = &identity{digest: info.Image.Digest(), reference: info.Image.Reference(), indexes: digestsOf(info.Image.Indexes()), run: info.Provenance.Run}
		}
	}
	p.current = current
	if current == nil || current.identity == nil {
		return false, nil
	}
	was := current.identity
	p.result.Digest, p.result.Replaced = p.digest, v1.Hash{}
	outcome := cache.Unchanged
	isSame := was.digest == p.digest && was.reference == p.reference
	complete := !slices.ContainsFunc(digestsOf(p.indexes), func(d v1.Hash) bool { return !slices.Contains(was.indexes, d) })
	switch {
	case isSame && complete:
		if damaged, err := p.isDamaged(ctx); damaged || err != nil {
			return false, err
		}
		if p.Provenance.Run.NewerThan(was.run) {
			p.relabel = true
			return false, nil
		}
		p.bucket.touch(ctx, current)
	case !p.Replace && refname.Repository(was.reference) != refname.Repository(p.reference):
		return false, fmt.Errorf("%s: %w: it holds %s, and %s is of another repository", p.path, cache.ErrOtherImage, was.reference, p.reference)
	case was.run.NewerThan(p.Provenance.Run) && !p.Force:
		outcome = cache.Superseded
	case isSame:
		if p.Provenance.Run.ID == 0 { // it is still of the run that it was of
			p.Provenance.Run = was.run
		}
		return false, nil
	default:
		p.result.Replaced = was.digest
		return false, nil
	}
	p.result.Outcome, p.result.Total = outcome, current.size
	return true, nil
}

// isDamaged reports whether what is there is known to be damaged, or is found to be so if that
// is to be looked for.
func (p *put) isDamaged(ctx context.Context) (bool, error) {
	if p.Rewrite || p.damaged != "" && p.damaged == p.current.etag {
		return true, nil
	}
	if !p.Verify {
		return false, nil
	}
	results, err := p.bucket.Verify(ctx, []string{p.name}, nil)
	if err != nil {
		return false, err
	}
	if err := results[0].Err; err != nil {
		if ctx.Err() != nil {
			return false, wait.Err(ctx)
		}
		p.damaged = p.current.etag
		p.bucket.log.WarnContext(ctx, "a tarball is damaged, it is written again", "tarball", p.path, "error", err)
		return true, nil
	}
	return false, nil
}

// run does what is to be done for an image.
func (p *put) run(ctx context.Context, img *tarball.Image, src tarball.Source) error {
	b := p.bucket
	layout, err := tarball.NewLayout(img, p.Provenance)
	if err != nil {
		return fmt.Errorf("plan %s: %w", p.name, err)
	}
	p.result.Total = layout.Size()
	if p.relabel {
		err := b.relabel(ctx, p)
		if !isPrecondition(err) {
			return err
		}
		if done, err := p.isDone(ctx); done || err != nil {
			return err
		}
	}
	timing.Begin(p.Observer, timing.Lock)
	leading, err := b.join(ctx, pendingName(p.name, p.digest), layout.Layers())
	if err != nil {
		return fmt.Errorf("stock %s: %w", p.name, err)
	}
	defer leading.release()
	select {
	case b.uploads <- struct{}{}:
		defer func() { <-b.uploads }()
	case <-ctx.Done():
		return fmt.Errorf("stock %s: %w", p.name, wait.Err(ctx))
	}
	if leading.waited { // for one that may have done it
		if done, err := p.isDone(ctx); done || err != nil {
			return err
		}
	}
	for attempt := 1; ; attempt++ {
		done, err := p.write(ctx, img, layout, src, leading)
		if done || err != nil && !errors.Is(err, errAgain) {
			return err
		}
		if attempt == mostUploads {
			return fmt.Errorf("stock %s: it was begun %d times: %w", p.name, attempt, err)
		}
		if done, err := p.isDone(ctx); done || err != nil {
			return err
		}
		if p.relabel { // another has stored the same meanwhile
			return b.relabel(ctx, p)
		}
	}
}

// mostUploads is how often an upload is begun for one image.
const mostUploads = 4

// errAgain: what was begun cannot be completed, and may work when it is begun again.
var errAgain = errors.New("the upload must be begun again")

// identity returns the metadata of the object that is written.
func (p *put) identity(token string, verified time.Time) *identity {
	return &identity{
		digest: p.digest, reference: p.reference, indexes: digestsOf(p.indexes),
		run: cmp.Or(p.newest, p.Provenance.Run), group: p.Group, verified: verified, token: token,
	}
}

func newToken() string {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	return hex.EncodeToString(raw[:])
}
