package dataroot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// BuildOptions of [Dir.Build]. The zero value of each field works.
type BuildOptions struct {
	// Whole builds from nothing also where there is a template to go on from.
	Whole bool
	// Load are the options of each load.
	Load *loader.Options
}

// An Outcome is what [Dir.Build] has done. Programs print its text.
type Outcome string

// The outcomes.
const (
	Built     Outcome = "built"     // from nothing
	Refreshed Outcome = "refreshed" // from a clone of the template that was there
	Unchanged Outcome = "unchanged" // it holds these images already
)

// A Result is what [Dir.Build] has done.
type Result struct {
	Template Template
	Outcome  Outcome
	// Loaded are what was loaded, by reference.
	Loaded map[string]*loader.Result
	// Removed are references that the template had, and no longer has.
	Removed []string
	// Took is how long it took.
	Took time.Duration
}

// Build makes the template for a base name and an engine hold the images of these tarballs,
// each under its reference, and no others. One that holds them already stays. Else the engine
// runs on a clone of the one that is there, or on an empty file system, loads what it lacks,
// removes what is no longer wanted, and is stopped; the file system is checked, and the
// result gets its name at once, whole. Clones of the one before go on.
//
// It waits for another build of the same name on this machine. It must be root. The errors:
// [ErrUnsupported]; those of [loader.Load]; an engine that does not start or stop. After an
// error the template is what it was.
func (d *Dir) Build(ctx context.Context, base string, e Engine, images []*tarball.Tarball, o *BuildOptions) (*Result, error) {
	if o == nil {
		o = &BuildOptions{}
	}
	result, err := d.build(ctx, base, e, images, o)
	if err != nil {
		return nil, fmt.Errorf("dataroot: build %s: %w", base, err)
	}
	return result, nil
}

func (d *Dir) build(ctx context.Context, base string, e Engine, images []*tarball.Tarball, o *BuildOptions) (*Result, error) {
	begun := time.Now()
	if err := checkImages(images); err != nil {
		return nil, err
	}
	version, err := e.Record(ctx)
	if err != nil {
		return nil, err
	}
	name := TemplateName(base, version)
	if checkName(name) != nil {
		return nil, fmt.Errorf("a template cannot be called %s", name)
	}
	if err := canMount(); err != nil {
		return nil, err
	}
	release, err := d.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer release()
	whole := o.Whole
	before, t, err := d.open(name)
	switch {
	case err == nil:
		defer before.Close()
		if d.isSized && t.Record.Size != d.options.Size {
			whole = true
		}
		if !whole && t.Record.hasAll(images) {
			d.used(before)
			return &Result{Template: t, Outcome: Unchanged, Took: time.Since(begun)}, nil
		}
	case errors.Is(err, ErrNotTemplate):
		d.log.WarnContext(ctx, "the template is rebuilt", "reason", err)
	case !errors.Is(err, ErrNoTemplate):
		return nil, err
	}
	if whole || t.Record == nil {
		before = nil
	}
	b := &builder{dir: d, engine: e, options: o, images: images, record: Record{Engine: version}, loaded: map[string]*loader.Result{}}
	if before != nil {
		b.before = t.Record
	}
	if err := b.make(ctx, name, before); err != nil {
		return nil, err
	}
	r := &Result{Outcome: Built, Loaded: b.loaded, Removed: b.removed, Took: time.Since(begun)}
	if before != nil {
		r.Outcome = Refreshed
	}
	r.Template, err = d.Get(name)
	return r, err
}

// checkImages refuses what no engine could hold together.
func checkImages(images []*tarball.Tarball) error {
	if len(images) == 0 {
		return errors.New("no tarball was given")
	}
	seen := map[string]v1.Hash{}
	for _, t := range images {
		reference, digest := t.Image.Reference(), t.Image.Digest()
		if other, ok := seen[reference]; ok && other != digest {
			return fmt.Errorf("two images have the reference %s: %s and %s", reference, other, digest)
		}
		seen[reference] = digest
	}
	return nil
}

// indexesOf returns the digests of an image's indexes.
func indexesOf(image *tarball.Image) (digests []v1.Hash) {
	for _, raw := range image.Indexes() {
		digest, _, _ := v1.SHA256(bytes.NewReader(raw)) // of memory
		digests = append(digests, digest)
	}
	return digests
}

// Is reports whether a digest is the image's, or that of an index that it was found through.
func (i *Image) Is(digest v1.Hash) bool {
	return i.Digest == digest || slices.Contains(i.Indexes, digest)
}

// hasAll reports whether the record is of these images and no others.
func (r *Record) hasAll(images []*tarball.Tarball) bool {
	wanted := map[string]v1.Hash{}
	for _, t := range images {
		wanted[t.Image.Reference()] = t.Image.Digest()
	}
	for _, i := range r.Images {
		if wanted[i.Reference] != i.Digest {
			return false
		}
		delete(wanted, i.Reference)
	}
	return len(wanted) == 0
}

// lock waits until no other build of the name goes on, on this machine or another one that the
// locks of the file system reach. Elsewhere both build, and the last one stays.
func (d *Dir) lock(ctx context.Context, name string) (release func(), err error) {
	for {
		if release, err = d.tryLock(name); release != nil || err != nil {
			return release, err
		}
		if err := wait.Sleep(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// tryLock is lock without waiting: release is nil if another process has it. The file is removed
// while it is locked, so who has opened it before sees that it is not the lock any more.
func (d *Dir) tryLock(name string) (release func(), err error) {
	at := filepath.Join(d.path, "."+name+lockSuffix)
	f, err := sys.OpenOwn(at, 0)
	if errors.Is(err, os.ErrNotExist) {
		if f, err = sys.CreateOwn(at); errors.Is(err, os.ErrExist) { // another process has
			return nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	if held, _ := sys.TryLock(f); held || !sys.IsAt(f, at) {
		return nil, f.Close()
	}
	return func() {
		_ = sys.Unlink(at)
		_ = f.Close()
	}, nil
}

// A builder is one call of [Dir.Build].
type builder struct {
	dir     *Dir
	engine  Engine
	options *BuildOptions
	images  []*tarball.Tarball
	before  *Record // of what it goes on from; nil for nothing
	record  Record  // of what it makes
	loaded  map[string]*loader.Result
	removed []string
}

// load makes the engine have the images and no others.
func (b *builder) load(ctx context.Context, engine loader.Engine) error {
	options := loader.Options{}
	if b.options.Load != nil {
		options = *b.options.Load
	}
	options.NoPull = true // it reaches no registry
	wanted := map[string]bool{}
	ids := map[v1.Hash]bool{}
	byReference := map[string]v1.Hash{}
	for _, t := range b.images {
		reference := t.Image.Reference()
		if wanted[reference] {
			continue
		}
		wanted[reference] = true
		result, err := loader.Load(ctx, engine, t, &options)
		if err != nil {
			return fmt.Errorf("%s: %w", reference, err)
		}
		b.loaded[reference] = result
		id, state, err := engine.Find(ctx, reference)
		if err == nil && (id == v1.Hash{} || state == loader.Incomplete) {
			err = loader.ErrNotLoaded
		}
		if err != nil {
			return fmt.Errorf("%s: %w", reference, err)
		}
		ids[id], byReference[reference] = true, id
		b.record.Images = append(b.record.Images, Image{Reference: reference, Digest: t.Image.Digest(), ID: id, Tarball: path.Base(t.Name()), Indexes: indexesOf(t.Image)})
	}
	sortImages(b.record.Images)
	if b.before == nil {
		return nil
	}
	for _, old := range b.before.Images {
		if !wanted[old.Reference] {
			if err := remove(ctx, engine, old.Reference); err != nil {
				return fmt.Errorf("remove %s, which is no longer wanted: %w", old.Reference, err)
			}
			b.removed = append(b.removed, old.Reference)
		} else if !ids[old.ID] { // another image has its reference now
			if err := b.removeUnnamed(ctx, engine, old.ID, byReference[old.Reference]); err != nil {
				return fmt.Errorf("remove %s, which %s was: %w", old.ID, old.Reference, err)
			}
		}
	}
	slices.Sort(b.removed)
	return nil
}

// remove removes a reference, and the image if it has no other one.
func remove(ctx context.Context, engine loader.Engine, reference string) error {
	if r, ok := engine.(loader.Remover); ok {
		return r.Remove(ctx, reference)
	}
	return engine.Name(ctx, reference, v1.Hash{})
}

// removeUnnamed removes an image that has lost its reference to the image with another identity.
func (b *builder) removeUnnamed(ctx context.Context, engine loader.Engine, id, by v1.Hash) error {
	if b.engine.Kind != Containerd {
		return remove(ctx, engine, id.String())
	}
	// containerd removes it itself, some time after, and at once when a name is removed.
	const name = "dockercache.invalid/removed:now"
	if err := engine.Name(ctx, name, by); err != nil {
		return err
	}
	return remove(ctx, engine, name)
}
