package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultSweepAge is the default of [SweepOptions.Age]: a build that failed is
// repeated within a day, and then goes on with what the partial file has.
const DefaultSweepAge = 24 * time.Hour

// SweepOptions of [Dir.Sweep]. The zero value of each field works.
type SweepOptions struct {
	// Age is for how long a file must not have been written to, by the clock of
	// this machine and the time of the file; one from the future is new. Default:
	// [DefaultSweepAge].
	Age time.Duration
	// DryRun removes nothing, and tells what it would remove.
	DryRun bool
}

// Sweep removes what writers of any tarball have left: partial files of writers
// that are dead, with their journals; versions that were replaced, when the grace
// for their readers is over ([DirOptions.Grace], where there is none
// [DefaultGrace], for the directory may be another machine's network file system);
// marks of tarballs that are gone; locks of dead owners; temporary files. [Dir.Put]
// sweeps after its own tarball alone.
//
// A file goes only if its name has the exact form of this package, it is a
// regular file, it is old enough, and nobody has it locked. Tarballs are never
// touched, and no link is followed.
//
// It returns what is gone, in the order of the names, also with an error: that
// of the directory, those of files that could not be removed, or the reason for
// which ctx ended.
func (d *Dir) Sweep(ctx context.Context, o *SweepOptions) ([]Leftover, error) {
	if o == nil {
		o = &SweepOptions{}
	}
	s := sweeper{dir: d.path, now: d.now(), age: o.Age, grace: d.sweepGrace(), dryRun: o.DryRun}
	if s.age <= 0 {
		s.age = DefaultSweepAge
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			s.errs = append(s.errs, fmt.Errorf("sweep %s: %w", d.path, context.Cause(ctx)))
			break
		}
		if kind, tarball := leftoverOf(e.Name()); kind != "" {
			s.sweep(kind, e.Name(), tarball)
		}
	}
	return s.gone, errors.Join(s.errs...)
}

// sweeper is one call of Sweep.
type sweeper struct {
	dir        string
	now        time.Time
	age, grace time.Duration
	dryRun     bool
	gone       []Leftover
	errs       []error
}

func (s *sweeper) sweep(kind LeftoverKind, name, tarball string) {
	path := filepath.Join(s.dir, name)
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return // gone meanwhile, or nothing that this package makes
	}
	switch kind {
	case RetiredLeftover:
		if at, ok := retiredAt(path); ok && ageOf(at, s.now) >= s.grace {
			s.remove(kind, name)
		}
		return
	case PartialLeftover, TemporaryLeftover:
		if f := lockDead(path, s.now, s.age); f != nil {
			// The journal goes while the lock is held: it may not be the next writer's.
			s.remove(kind, name)
			if kind == PartialLeftover {
				s.remove(JournalLeftover, name+journalKind)
			}
			_ = f.Close()
		}
		return
	case LockLeftover:
		if f := lockDeadLock(path, s.now, s.age); f != nil {
			s.remove(WantedLeftover, name+askKind)
			s.remove(kind, name)
			_ = f.Close()
		}
		return
	}
	// The others go when what they are for is gone.
	of := map[LeftoverKind]string{
		JournalLeftover: strings.TrimSuffix(name, journalKind),
		WantedLeftover:  strings.TrimSuffix(name, askKind),
		MarkLeftover:    tarball,
	}[kind]
	if _, err := os.Lstat(filepath.Join(s.dir, of)); errors.Is(err, fs.ErrNotExist) && ageOf(info.ModTime(), s.now) >= s.age {
		s.remove(kind, name)
	}
}

// remove removes a file, if it is there and is one.
func (s *sweeper) remove(kind LeftoverKind, name string) {
	path := filepath.Join(s.dir, name)
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	at := info.ModTime()
	if kind == RetiredLeftover {
		at, _ = retiredAt(path)
	}
	if !s.dryRun {
		if err := unlink(path); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				s.errs = append(s.errs, err)
			}
			return
		}
	}
	s.gone = append(s.gone, Leftover{Name: name, Kind: kind, Bytes: allocated(info), Age: ageOf(at, s.now)})
}

// lockDeadLock opens and locks a writer's lock whose owner is dead; nil if that
// cannot be said. Where the kernel's lock does not reach the owner, or does not
// work, its signs of life tell: it writes them into the file every [beatEvery].
func lockDeadLock(path string, now time.Time, age time.Duration) *os.File {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if host, _ := os.Hostname(); err != nil || isNetwork(f) || readOwner(f).Host != host {
		age = max(age, deadAfter)
	}
	info, statErr := f.Stat()
	if statErr != nil || !info.Mode().IsRegular() || ageOf(info.ModTime(), now) < age || errors.Is(err, unix.EWOULDBLOCK) || !isAt(f, path) {
		_ = f.Close()
		return nil
	}
	return f
}

// unlink removes a file. [os.Remove] would remove a directory too, if one had
// come into its place.
func unlink(path string) error {
	if err := unix.Unlink(path); err != nil {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}
