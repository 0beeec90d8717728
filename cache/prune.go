package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/internal/wait"
)

// PruneOptions of [Dir.Prune]. A limit that is 0 is none; without any only
// leftovers are swept.
type PruneOptions struct {
	// Filter, when not nil, reports whether a tarball may be removed. Others stay, and
	// count for nothing. Neither Filter nor Group is called for an entry with an error.
	Filter func(Entry) bool
	// Group, when not nil, says what belongs together, see RemoveNewest. Default:
	// [Entry.Group].
	Group func(Entry) string
	// Count is how many tarballs may stay.
	Count int
	// MaxAge is for how long a tarball may stay unused, see [Entry.LastUsed], which is
	// not exact to the hour.
	MaxAge time.Duration
	// MaxBytes is how many bytes of the disk all tarballs together may have. What
	// files share counts for each, so that more may be removed than is needed.
	MaxBytes int64
	// LowWater: when they have more than MaxBytes, tarballs go until they have no
	// more than this. Default: MaxBytes. Less keeps prune from having something to do
	// after each build.
	LowWater int64
	// RemoveNewest lets the newest tarball of a group go too. Default: it stays, whatever
	// the limits say. Tarballs of two branches are of one group. The newest is of the
	// newest build run, or where that is not known, the one that was written last.
	RemoveNewest bool
	// Foreign removes archives of images that other programs made, such as docker save,
	// and that have names of tarballs: those of which [Entry.Foreign] is set. Other files
	// that are no tarballs of this cache stay, for they may be damaged ones. So does what
	// is in use, and on a network file system what was written in the last 2 minutes.
	// Default: they count for nothing and stay.
	Foreign bool
	// Others, when not nil, is what else is in the directory, counts, and may go: limits, Filter
	// and Group are for both. A bucket has none.
	Others Prunable
	// DryRun removes nothing, and reports what it would remove.
	DryRun bool
	// LeftoverAge is [SweepOptions.Age].
	LeftoverAge time.Duration
}

// A Prunable is what is in a directory beside tarballs, such as the templates of the package
// dataroot.
type Prunable interface {
	// Entries lists it. No tarball can have the name of one.
	Entries() ([]Entry, error)
	// RemoveEntry removes one, or with dryRun only looks, and reports whether it stays since it is in
	// use.
	RemoveEntry(e *Entry, dryRun bool) (stays bool, err error)
}

// A PruneResult says what [Dir.Prune] did, or with [PruneOptions.DryRun] would do.
type PruneResult struct {
	// Removed are the tarballs that are gone, in the order in which they went: the
	// least recently used first.
	Removed []PruneAction
	// Kept are those that are beyond a limit and stay, and why.
	Kept []PruneAction
	// Freed is how many bytes of the disk the removed had. What they shared with
	// others is not free.
	Freed int64
	// Left and LeftBytes are how many tarballs there still are, of those that
	// [PruneOptions.Filter] lets go, and how many bytes of the disk they have.
	Left      int
	LeftBytes int64
	// OverCount, OverAge and OverBytes are by how much a limit could not be reached: how many
	// tarballs there are beyond [PruneOptions.Count]; how many that were unused for longer
	// than MaxAge; how many bytes they have beyond MaxBytes. Kept has the reasons, but for those
	// that could not be removed: the error of Prune names them. 0: the limit holds.
	OverCount int
	OverAge   int
	OverBytes int64
	// Swept are the leftovers of writers that are gone.
	Swept []Leftover
}

// Prune removes tarballs until the directory is within limits, the least recently used
// first, and sweeps as [Dir.Sweep] does. What is in
// the directory and is no tarball counts for nothing and stays, but see
// [PruneOptions.Foreign].
//
// A tarball that is being read or written stays, and another goes in its place.
// Writers, and readers of this package, are seen on every machine that locks
// reach; other readers on this machine only, on Linux, and only if this user owns the
// tarball or this process is root. A reader that comes later gets [fs.ErrNotExist].
// One that has the file open can finish, except on another NFS client when locks do
// not work. Prunes run one at a time; dry runs do not wait.
//
// The result is never nil. A tarball that cannot be removed does not stop the
// others. The errors: limits that contradict each other; those of the file system;
// the reason for which ctx ended.
func (d *Dir) Prune(ctx context.Context, o *PruneOptions) (*PruneResult, error) {
	if o == nil {
		o = &PruneOptions{}
	}
	r := &PruneResult{}
	if err := errors.Join(d.check(), o.Check()); err != nil {
		return r, err
	}
	if !o.DryRun {
		unlock, err := d.lockAll(ctx, pruneLock)
		if err != nil {
			return r, fmt.Errorf("prune: %w", err)
		}
		defer unlock()
	}
	var err error
	if r.Swept, err = d.Sweep(ctx, &SweepOptions{Age: o.LeftoverAge, DryRun: o.DryRun}); err != nil {
		err = fmt.Errorf("prune: %w", err)
		if ctx.Err() != nil {
			return r, err
		}
	}
	all, listErr := d.List(ctx)
	if listErr != nil {
		return r, errors.Join(err, fmt.Errorf("prune: %w", listErr))
	}
	var foreign []Entry
	for _, e := range all {
		if e.Foreign && o.Foreign {
			foreign = append(foreign, e)
		}
	}
	how := removeUnused
	if o.DryRun {
		how = removeNothing
	}
	err = errors.Join(err, d.pruneForeign(ctx, foreign, how, r))
	isOther := map[string]bool{}
	if o.Others != nil {
		others, listErr := o.Others.Entries()
		if listErr != nil {
			return r, errors.Join(err, fmt.Errorf("prune: %w", listErr))
		}
		for _, e := range others {
			isOther[e.Name] = true
		}
		all = append(all, others...)
	}
	return r, errors.Join(err, PruneEntries(ctx, all, o, r, d.now(), func(e *Entry) (bool, error) {
		if isOther[e.Name] {
			return o.Others.RemoveEntry(e, o.DryRun)
		}
		return d.removeTarball(ctx, e, how)
	}))
}

// PruneEntries removes those of all tarballs that are beyond the limits, as [Dir.Prune] does, and fills
// in what it did, but for Swept. It is for other stores. remove removes one, and reports whether it
// stays since it is in use or was replaced: then the plan is made again, and another goes in its
// place, as it does after an error. The errors are those of remove, and the reason for which ctx
// ended.
func PruneEntries(ctx context.Context, all []Entry, o *PruneOptions, r *PruneResult, now time.Time, remove func(e *Entry) (stays bool, err error)) error {
	var entries []Entry
	for _, e := range all {
		if e.Err != nil || o.Filter != nil && !o.Filter(e) {
			continue
		}
		if o.Group != nil {
			e.Group = o.Group(e)
		}
		entries = append(entries, e)
		r.Left++
		r.LeftBytes += e.Allocated
	}
	defer func() { r.measure(entries, o, now) }()
	var errs []error
	inUse, failed, gone := map[string]bool{}, map[string]bool{}, map[string]bool{}
	var plan []PruneAction
	for again := true; again; {
		again = false
		plan = PlanPrune(entries, o, inUse, now)
		for _, p := range plan {
			name := p.Entry.Name
			if p.Kept != "" || gone[name] {
				continue
			}
			if ctx.Err() != nil {
				return errors.Join(append(errs, fmt.Errorf("prune: %w", wait.Err(ctx)))...)
			}
			stays, err := remove(&p.Entry)
			if err != nil {
				errs = append(errs, fmt.Errorf("prune %s: %w", name, err))
			}
			if again = stays || err != nil; again {
				inUse[name], failed[name] = true, err != nil
				break
			}
			gone[name] = true
			r.Removed = append(r.Removed, p)
			r.Freed += p.Entry.Allocated
			r.Left--
			r.LeftBytes -= p.Entry.Allocated
		}
	}
	for _, p := range plan {
		if p.Kept != "" && !failed[p.Entry.Name] {
			r.Kept = append(r.Kept, p)
		}
	}
	return errors.Join(errs...)
}

// measure fills in by how much limits are missed, from Removed, Left and LeftBytes.
func (r *PruneResult) measure(entries []Entry, o *PruneOptions, now time.Time) {
	if o.Count > 0 {
		r.OverCount = max(r.Left-o.Count, 0)
	}
	if o.MaxBytes > 0 {
		r.OverBytes = max(r.LeftBytes-o.MaxBytes, 0)
	}
	if o.MaxAge > 0 {
		gone := map[string]bool{}
		for _, p := range r.Removed {
			gone[p.Entry.Name] = true
		}
		for _, e := range entries {
			if !gone[e.Name] && sys.Age(e.LastUsed, now) > o.MaxAge {
				r.OverAge++
			}
		}
	}
}

// beingWrittenFor is how long a file that was just written may still be open for writing
// on another host: where it cannot be seen which process has the file open.
const beingWrittenFor = 2 * time.Minute

// pruneForeign removes what is not of this cache.
func (d *Dir) pruneForeign(ctx context.Context, foreign []Entry, how removal, r *PruneResult) error {
	var errs []error
	for _, e := range foreign {
		if ctx.Err() != nil {
			break // PruneEntries reports it
		}
		p := PruneAction{Entry: e, Why: PruneForeign}
		used := d.network && sys.Age(e.Written, d.now()) < beingWrittenFor
		var err error
		if !used {
			used, err = d.removeTarball(ctx, &e, how)
		}
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("prune %s: %w", e.Name, err))
		case used:
			p.Kept = KeepInUse
			r.Kept = append(r.Kept, p)
		default:
			r.Removed = append(r.Removed, p)
			r.Freed += e.Allocated
		}
	}
	return errors.Join(errs...)
}

// Remove removes the tarball called name, whatever its age, and what is recorded of
// it. The errors: [ErrInvalidName]; [ErrInUse] when it is being read or written, see
// [Dir.Prune]; [fs.ErrNotExist]; those of the file system; that of ctx.
func (d *Dir) Remove(ctx context.Context, name string) error {
	if err := wait.Err(ctx); err != nil {
		return err
	}
	path, err := d.tarballPath(name)
	if err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("remove %s: not a regular file", path)
	}
	used, err := d.removeTarball(ctx, &Entry{Name: name, file: info}, removeAnyway)
	switch {
	case err != nil:
		return fmt.Errorf("remove %s: %w", path, err)
	case used:
		return fmt.Errorf("remove %s: %w", path, ErrInUse)
	}
	return nil
}

// A removal is how a tarball is removed.
type removal int

const (
	removeUnused  removal = iota // unless it was used since it was listed
	removeAnyway                 // that does not matter
	removeNothing                // a dry run
)

// removeTarball removes a tarball and its mark, unless it is in use. It holds the
// tarball's lock meanwhile, so that no writer and no other prune is in between.
// One that another has removed counts as removed.
func (d *Dir) removeTarball(ctx context.Context, e *Entry, how removal) (used bool, err error) {
	if how == removeNothing {
		if d.isBeingWritten(e.Name) {
			return true, nil
		}
	} else {
		lock, err := d.tryLock(ctx, e.Name)
		if lock == nil || err != nil {
			return err == nil, err
		}
		defer lock.unlock()
	}
	path := filepath.Join(d.path, e.Name)
	f, err := sys.OpenToLock(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, syscall.EWOULDBLOCK): // a file server has promised it to a client
		return true, nil
	case err != nil:
		return false, err
	}
	defer f.Close()
	// Not what was listed, or it has just been used.
	info, err := f.Stat()
	if err != nil || !os.SameFile(info, e.file) || !sys.IsAt(f, path) {
		return true, err
	}
	if _, marked := readRecord(d.path, e.Name); how != removeAnyway && marked.After(e.LastUsed) {
		return true, nil
	}
	if sys.InUse(f) {
		return true, nil
	}
	if how == removeNothing {
		return false, nil
	}
	if err := sys.Unlink(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	for _, mark := range marksOf(d.path)[e.Name] {
		_ = sys.Unlink(filepath.Join(d.path, mark)) // one that is left is swept later
	}
	forgetVerified(d.path, e.Name)
	return false, nil
}
