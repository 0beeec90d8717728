package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/dockercache/dockercache/cache/internal/marks"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/internal/wait"
)

// A LeftoverKind says what a file beside the tarballs is for. Programs print its text.
type LeftoverKind string

// The kinds of files that writers leave when they are killed, or leave on purpose
// for a time.
const (
	// PartialLeftover: a tarball that was begun, .<tarball>.<digest>.<unique>.partial.
	PartialLeftover LeftoverKind = "partial"
	// JournalLeftover: what is in such a file, under its name and .journal.
	JournalLeftover LeftoverKind = "journal"
	// PreviousLeftover: a version that was replaced, .<tarball>.<time>.<unique>.retired.
	PreviousLeftover LeftoverKind = "retired"
	// MarkLeftover: when a tarball was last used, .<tarball>.mark, .<tarball>.<user>.mark.
	MarkLeftover LeftoverKind = "mark"
	// VerifiedLeftover: when a tarball was verified, .<tarball>.<user>.verified.
	VerifiedLeftover LeftoverKind = "verified"
	// LockLeftover: who writes a tarball, .<tarball>.lock, .<tarball>.lock.next.
	LockLeftover LeftoverKind = "lock"
	// WantedLeftover: who wants that lock, its name and .wanted.
	WantedLeftover LeftoverKind = "wanted"
	// TemporaryLeftover: a file of package atomicfile, .<name>.<unique>.tmp.
	TemporaryLeftover LeftoverKind = "temporary"
)

// A Leftover is a file that [Dir.Sweep] removed, or would remove.
type Leftover struct {
	// Name is the file's, without a path. It may have any character but "/".
	Name string
	Kind LeftoverKind
	// Bytes is how much of the disk it had.
	Bytes int64
	// Age is how long ago it was last written; for a previous version, replaced.
	Age time.Duration
}

// leftoverForms are the exact forms of the names that this package makes. A file with
// any other name is not this package's, and stays. They are compiled when they are needed.
var leftoverForms = sync.OnceValue(func() []leftoverForm {
	return []leftoverForm{
		{PartialLeftover, regexp.MustCompile(`(?s)^\.([^.].*\.tar)\.[0-9a-f]{12}\.[0-9a-f]{16}\.partial$`)},
		{JournalLeftover, regexp.MustCompile(`(?s)^\.([^.].*\.tar)\.[0-9a-f]{12}\.[0-9a-f]{16}\.partial\.journal$`)},
		{PreviousLeftover, regexp.MustCompile(`(?s)^\.([^.].*\.tar)\.[0-9]{1,18}\.[0-9a-f]{16}\.retired$`)},
		{MarkLeftover, marks.Form()},
		{VerifiedLeftover, verifiedForm()},
		{LockLeftover, regexp.MustCompile(`(?s)^\.([^.].*\.tar)\.lock(\.next)?$`)},
		{WantedLeftover, regexp.MustCompile(`(?s)^\.([^.].*\.tar)\.lock(\.next)?\.wanted$`)},
		{TemporaryLeftover, regexp.MustCompile(`(?s)^\.(.+)\.[0-9a-f]{16}\.tmp$`)},
	}
})

type leftoverForm struct {
	kind LeftoverKind
	form *regexp.Regexp
}

// leftoverOf returns what kind of file this package gives such a name, and of
// which tarball it is; "" if it gives none.
func leftoverOf(name string) (kind LeftoverKind, tarball string) {
	for _, f := range leftoverForms() {
		m := f.form.FindStringSubmatch(name)
		if m == nil || f.kind != TemporaryLeftover && len(m[1]) > maxName {
			continue
		}
		return f.kind, m[1]
	}
	return "", ""
}

// DefaultSweepAge is the default of [SweepOptions.Age]: a build that failed is
// repeated within a day, and then goes on with what the partial file has.
const DefaultSweepAge = 24 * time.Hour

// SweepOptions of [Dir.Sweep]. The zero value of each field works.
type SweepOptions struct {
	// Age is for how long a file must not have been written to, by the clock of
	// this machine and the time of the file; one from the future is new. Default:
	// [DefaultSweepAge].
	Age time.Duration
	// DryRun removes nothing, and reports what it would remove.
	DryRun bool
}

// Sweep removes what writers of any tarball have left: partial files of writers
// that are dead, with their journals; versions that were replaced, when the grace
// for their readers is over ([Options.Grace], where there is none
// [DefaultGrace], for the directory may be another machine's network file system);
// what is recorded of tarballs that are gone; locks of dead owners; temporary files. [Dir.Put]
// sweeps after its own tarball alone.
//
// A file goes only if its name has the exact form of this package, it is a
// regular file, it is old enough, and no other process holds a lock on it. Tarballs are never
// touched, and no link is followed.
//
// It returns what is gone, in the order of the names, also with an error: that
// of the directory, those of files that could not be removed, or the reason for
// which ctx ended.
func (d *Dir) Sweep(ctx context.Context, o *SweepOptions) ([]Leftover, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	if o == nil {
		o = &SweepOptions{}
	}
	s := sweeper{d: d, dir: d.path, now: d.now(), age: o.Age, grace: d.sweepGrace(), dryRun: o.DryRun}
	if s.age <= 0 {
		s.age = DefaultSweepAge
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			s.errs = append(s.errs, fmt.Errorf("sweep %s: %w", d.path, wait.Err(ctx)))
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
	d          *Dir
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
	case PreviousLeftover:
		if at, ok := replacedAt(path); ok && sys.Age(at, s.now) >= s.grace {
			s.remove(kind, name)
		}
		return
	case PartialLeftover, TemporaryLeftover:
		if f := sys.LockToRemove(path, s.now, s.age); f != nil {
			// The journal goes while the lock is held: it may not be the next writer's.
			s.remove(kind, name)
			if kind == PartialLeftover {
				s.remove(JournalLeftover, name+journalKind)
			}
			_ = f.Close()
		}
		return
	case LockLeftover:
		if f, dead := s.d.lockDeadLock(path, s.age); dead {
			s.remove(WantedLeftover, name+askKind)
			s.remove(kind, name)
			if f != nil {
				_ = f.Close()
			}
		}
		return
	}
	// The others go when what they are for is gone.
	of := map[LeftoverKind]string{
		JournalLeftover: strings.TrimSuffix(name, journalKind),
		WantedLeftover:  strings.TrimSuffix(name, askKind),
		MarkLeftover:    tarball, VerifiedLeftover: tarball,
	}[kind]
	if _, err := os.Lstat(filepath.Join(s.dir, of)); errors.Is(err, fs.ErrNotExist) && sys.Age(info.ModTime(), s.now) >= s.age {
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
	if kind == PreviousLeftover {
		at, _ = replacedAt(path)
	}
	if !s.dryRun {
		if err := sys.Unlink(path); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				s.errs = append(s.errs, err)
			}
			return
		}
	}
	s.gone = append(s.gone, Leftover{Name: name, Kind: kind, Bytes: sys.Allocated(info), Age: sys.Age(at, s.now)})
}
