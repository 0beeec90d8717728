package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// PruneOptions of [Dir.Prune]. A limit that is 0 is none; without any only
// leftovers are swept.
type PruneOptions struct {
	// Count is how many tarballs may stay.
	Count int
	// MaxAge is for how long a tarball may stay unused, see [Entry.LastUsed].
	MaxAge time.Duration
	// MaxBytes is how many bytes of the disk all tarballs together may have. What
	// files share counts for each, so that more may be removed than is needed.
	MaxBytes int64
	// LowWater: when they have more than MaxBytes, tarballs go until they have no
	// more than this. Default: MaxBytes. Less keeps prune from having something to do
	// after each build.
	LowWater int64
	// Newest lets the newest tarball of a name go too. Default: it stays, whatever
	// the limits say. The name is the file's without "_<suffix>.tar", so those of
	// two branches are of one name. The newest is of the newest build run, or where
	// that is not known, the one that was written last.
	Newest bool
	// DryRun removes nothing, and tells what it would remove.
	DryRun bool
	// LeftoverAge is [SweepOptions.Age].
	LeftoverAge time.Duration
}

// A PruneResult tells what [Dir.Prune] did, or with [PruneOptions.DryRun] would do.
type PruneResult struct {
	// Removed are the tarballs that are gone, in the order in which they went: the
	// last used first.
	Removed []Pruned
	// Kept are those that are beyond a limit and stay, and why.
	Kept []Pruned
	// Freed is how many bytes of the disk the removed had. What they shared with
	// others is not free.
	Freed int64
	// Left and LeftBytes are how many tarballs there still are, and how many bytes
	// of the disk they have.
	Left      int
	LeftBytes int64
	// Swept are the leftovers of writers that are gone.
	Swept []Leftover
}

// Prune removes tarballs until the directory is within limits, those first that
// were last used the longest time ago, and sweeps as [Dir.Sweep] does. What is in
// the directory and is no tarball counts for nothing and stays.
//
// A tarball that somebody reads or writes stays, and another goes in its place.
// Writers, and readers of this package, are seen on every machine that locks
// reach; other readers on this machine only, on Linux, and if the tarball is this
// user's or the process is root's. One that comes later finds no file; one that
// has it open reads on, but on another machine of a network file system where
// locks do not work. Of several Prunes one works and the others wait, but for dry
// runs.
//
// The result is never nil. A tarball that cannot be removed does not stop the
// others. The errors: limits that contradict each other; those of the file system;
// the reason for which ctx ended.
func (d *Dir) Prune(ctx context.Context, o *PruneOptions) (*PruneResult, error) {
	if o == nil {
		o = &PruneOptions{}
	}
	r := &PruneResult{}
	if err := o.check(); err != nil {
		return r, err
	}
	if !o.DryRun {
		unlock, err := d.lockPrune(ctx)
		if err != nil {
			return r, err
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
	entries, listErr := d.List(ctx)
	if listErr != nil {
		return r, errors.Join(err, fmt.Errorf("prune: %w", listErr))
	}
	for _, e := range entries {
		if e.Err == nil {
			r.Left++
			r.LeftBytes += e.Allocated
		}
	}
	return r, errors.Join(err, d.prune(ctx, entries, o, r))
}

// pruneLock is what the lock of all prunes of a directory is called, .prune.lock;
// no tarball can be called so. With two at work each would find in use what the
// other is about to remove, and remove another in its place.
const pruneLock = "prune"

// lockPrune waits for other prunes.
func (d *Dir) lockPrune(ctx context.Context) (unlock func(), err error) {
	lock, _, err := d.lock(ctx, pruneLock, Run{}, false)
	switch {
	case err == nil:
		return lock.unlock, nil
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return func() {}, nil // then above all it must work
	}
	return nil, fmt.Errorf("prune: %w", err)
}

// prune follows the plan. Whenever a tarball turns out to be in use the plan is
// made anew, so that another goes in its place.
func (d *Dir) prune(ctx context.Context, entries []Entry, o *PruneOptions, r *PruneResult) error {
	now := d.now()
	var errs []error
	inUse, failed, gone := map[string]bool{}, map[string]bool{}, map[string]bool{}
	var plan []Pruned
	for again := true; again; {
		again = false
		plan = planPrune(entries, o, inUse, now)
		for _, p := range plan {
			name := p.Entry.Name
			if p.Kept != "" || gone[name] {
				continue
			}
			if ctx.Err() != nil {
				return errors.Join(append(errs, fmt.Errorf("prune %s: %w", d.path, context.Cause(ctx)))...)
			}
			used, err := d.removeTarball(&p.Entry, o.DryRun)
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("prune %s: %w", name, err))
				fallthrough
			case used:
				inUse[name], failed[name], again = true, err != nil, true
			default:
				gone[name] = true
				r.Removed = append(r.Removed, p)
				r.Freed += p.Entry.Allocated
				r.Left--
				r.LeftBytes -= p.Entry.Allocated
			}
			if again {
				break
			}
		}
	}
	for _, p := range plan {
		if p.Kept != "" && !failed[p.Entry.Name] {
			r.Kept = append(r.Kept, p)
		}
	}
	return errors.Join(errs...)
}

// removeTarball removes a tarball and its mark, unless it is in use. It holds the
// tarball's lock meanwhile, so that no writer and no other prune is in between.
// One that another has removed counts as removed.
func (d *Dir) removeTarball(e *Entry, dryRun bool) (used bool, err error) {
	if dryRun {
		if d.isBeingWritten(e.Name) {
			return true, nil
		}
	} else {
		lock, err := d.tryLock(e.Name)
		if lock == nil || err != nil {
			return err == nil, err
		}
		defer lock.unlock()
	}
	path := e.Tarball.Path
	f, err := openToRemove(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, unix.EWOULDBLOCK): // a file server has promised it to a client
		return true, nil
	case err != nil:
		return false, err
	}
	defer f.Close()
	// Not what was listed, or somebody has just found it to be of use.
	info, err := f.Stat()
	if err != nil || !os.SameFile(info, e.Tarball.file) || !isAt(f, path) {
		return true, err
	}
	if _, marked := readMark(d.path, e.Name); marked.After(e.LastUsed) {
		return true, nil
	}
	if inUse(f) {
		return true, nil
	}
	if dryRun {
		return false, nil
	}
	if err := unlink(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	_ = unlink(markPath(d.path, e.Name)) // one that is left is swept later
	return false, nil
}

// openToRemove opens a tarball in such a way that [inUse] can tell most: on NFS
// only a file that is open for writing can be locked against readers.
func openToRemove(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	}
	return f, err
}

// tryLock is [Dir.lock] without waiting, for work of an instant: nil if another
// has the tarball. An owner on another host counts as alive; a dead one's lock is
// swept in time.
func (d *Dir) tryLock(name string) (*writerLock, error) {
	path := filepath.Join(d.path, "."+name+"."+lockKind)
	f, _, err := openLock(path)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	me := newOwner(Run{})
	if !mayOwn(f, path, me.Host) {
		_ = f.Close()
		return nil, nil
	}
	ended := make(chan struct{}) // there are no signs of life to wait for
	close(ended)
	l := &writerLock{file: f, path: path, me: me, stop: func() {}, ended: ended}
	_ = l.write() // a full disk must not keep prune from making room
	return l, nil
}

// isBeingWritten tells whether [Dir.tryLock] would not get the lock, and creates
// nothing.
func (d *Dir) isBeingWritten(name string) bool {
	path := filepath.Join(d.path, "."+name+"."+lockKind)
	f, err := openOldLock(path)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	return !mayOwn(f, path, newOwner(Run{}).Host)
}

// mayOwn tells whether nobody has the lock at path, which f is: f has the
// kernel's lock on it, and it names no owner, or one that has died on this host.
func mayOwn(f *os.File, path, host string) bool {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if info, statErr := f.Stat(); statErr != nil || !info.Mode().IsRegular() || errors.Is(err, unix.EWOULDBLOCK) || !isAt(f, path) {
		return false
	}
	was := readOwner(f)
	return was.ID == "" || was.Host == host && err == nil
}
