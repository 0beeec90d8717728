package bucket

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/internal/batch"
	"github.com/dockercache/dockercache/cache/tarball"
)

// Get opens the tarball called name and reads its beginning, as [tarball.Read] does. Close must be
// called in the end. What is read in order is read ahead by eight requests at a time, up to 32 MiB;
// nothing is written to this machine's disk. A read that waits for the server is ended by
// Close alone.
//
// If another tarball takes the name meanwhile, the layers that it has too are read from there;
// reading others fails with [cache.ErrReplaced].
//
// The errors are those of [tarball.Read]; [cache.ErrInvalidName]; [fs.ErrNotExist] and other
// errors of requests.
func (b *Bucket) Get(ctx context.Context, name string) (*tarball.Tarball, error) {
	if _, err := b.tarballPath(name); err != nil {
		return nil, err
	}
	t, _, err := b.openTarball(ctx, name, false)
	return t, err
}

// Verify reads whole tarballs, those called names or all of the prefix if there are none, and
// verifies every byte, as [cache.Dir.Verify] does. What it returns is that too, but that damage or
// its absence is not recorded.
func (b *Bucket) Verify(ctx context.Context, names []string, o *cache.VerifyOptions) ([]cache.VerifyResult, error) {
	if o == nil {
		o = &cache.VerifyOptions{}
	}
	all := map[string]listed{}
	if len(names) == 0 || o.Progress != nil {
		var err error
		if all, err = b.listObjects(ctx, ""); err != nil {
			return nil, fmt.Errorf("verify tarballs: %w", err)
		}
	}
	if len(names) == 0 {
		names = tarballsIn(all)
	}
	total := int64(0)
	for _, n := range names {
		total += all[n].size
	}
	results := make([]cache.VerifyResult, len(names))
	err := batch.Run(ctx, len(names), o.Parallel, total, o.Progress, func(i int, report func(n int64)) {
		results[i] = b.verify(ctx, names[i], report)
	})
	if err != nil {
		return nil, fmt.Errorf("verify tarballs in %s: %w", b.Path(), err)
	}
	return results, nil
}

// verify verifies a tarball; if it is replaced meanwhile, the one that replaces it.
func (b *Bucket) verify(ctx context.Context, name string, progress func(n int64)) (r cache.VerifyResult) {
	for range openAttempts {
		r = cache.VerifyResult{Name: name}
		if _, r.Err = b.tarballPath(name); r.Err != nil {
			return r
		}
		t, o, err := b.openTarball(ctx, name, true)
		if err != nil {
			r.Err = err
			return r
		}
		done := int64(0)
		r.Info, r.Version = &t.Info, o.etag
		r.Err = t.Verify(ctx, func(n int64) { done += n; progress(n) })
		_ = t.Close()
		if r.Err == nil {
			r.Err = b.checkIdentity(o, &t.Info)
		}
		if !errors.Is(r.Err, cache.ErrReplaced) {
			break
		}
		progress(-done)
	}
	var damage *tarball.DamageError
	if errors.As(r.Err, &damage) {
		r.Damaged = damage.Layers
	}
	return r
}

// checkIdentity returns an error if the metadata of an object says something else than what it
// holds: then a writer would take it for another image.
func (b *Bucket) checkIdentity(o *object, info *tarball.Info) error {
	i := o.identity
	if i == nil {
		return nil
	}
	switch img := info.Image; {
	case i.digest != img.Digest():
		return fmt.Errorf("%s: %w: its metadata says %s, and it holds %s", b.address(o.name), tarball.ErrDigest, i.digest, img.Digest())
	case i.reference != img.Reference():
		return fmt.Errorf("%s: %w: its metadata says %s, and it holds %s", b.address(o.name), tarball.ErrDigest, i.reference, img.Reference())
	case !slices.Equal(i.indexes, digestsOf(img.Indexes())):
		return fmt.Errorf("%s: %w: its metadata says that it has the indexes %v, and it has %v", b.address(o.name), tarball.ErrDigest, i.indexes, digestsOf(img.Indexes()))
	}
	return nil
}

// Repair stores a tarball again, since [Bucket.Verify] found damage in it, or that its metadata is of
// another image: the same bytes as it had when it was first stored, under the same name, from src,
// which must be of the same image. It replaces the object that was verified, whatever its metadata
// says, or one of the same image that has taken its place. The errors are those of [Bucket.Put], and
// [cache.ErrReplaced] when another image has the name by now, or none.
func (b *Bucket) Repair(ctx context.Context, damaged *cache.VerifyResult, src tarball.Source, o *cache.RepairOptions) (*cache.Result, error) {
	if damaged == nil || damaged.Info == nil || damaged.Version == "" || src == nil {
		return &cache.Result{}, errors.New("repair: there is no result of a verification with what the tarball holds, or no source")
	}
	put := cache.PutOptions{Provenance: damaged.Info.Provenance, Rewrite: true}
	if o != nil {
		put.Progress, put.MinRate = o.Progress, o.MinRate
	}
	p, err := b.newPut(ctx, damaged.Name, &put)
	if err != nil {
		return &cache.Result{}, err
	}
	img := damaged.Info.Image
	p.digest, p.reference, p.indexes, p.repairs = img.Digest(), img.Reference(), img.Indexes(), damaged.Version
	p.result.Digest = p.digest
	if _, err := p.isDone(ctx); err != nil {
		return p.result, err
	}
	return p.result, p.run(ctx, img, src)
}

// mayRepair looks at what has the name, and returns an error if a repair must not replace it. Of
// metadata that is right the run and the group are kept.
func (p *put) mayRepair(current *object) error {
	isSame := current != nil && current.identity != nil && current.digest == p.digest && current.reference == p.reference
	if current == nil || current.etag != p.repairs && !isSame {
		return fmt.Errorf("%s: %w", p.path, cache.ErrReplaced)
	}
	p.current = current
	if isSame {
		p.Group = current.group
		if current.run.NewerThan(p.Provenance.Run) {
			p.newest = current.run
		}
	}
	return nil
}
