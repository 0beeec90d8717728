package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

const (
	partialKind = "partial"
	journalKind = ".journal" // follows the partial file's whole name

	// abandonedAfter is how long a partial file that nobody resumes stays.
	abandonedAfter = time.Hour
	// quietAfter is how long a partial file on a network file system must be
	// untouched before its writer counts as dead: there a lock that can be had
	// is no proof, since it may not reach from host to host. A live writer is
	// quiet for 30 s at most, its longest wait.
	quietAfter = 2 * time.Minute
)

// A partialFile is a tarball in the making: the file, locked, and its journal.
type partialFile struct {
	file    *os.File
	lock    *os.File               // the same open file: holds the lock while file is closed and renamed
	done    map[v1.Hash][]interval // what an earlier run wrote
	journal *journal
	log     *os.File // the journal's
	discard bool     // remove both on close
}

// openPartial takes over what a dead writer of the same image left, or creates
// a new file.
//
// Taking over is a rename to a new unique name: of any number of processes, on
// any number of hosts, one succeeds. Should the old owner be alive after all,
// its file is gone from under its name, so it cannot publish it; and until it
// notices, it writes the same bytes to the same places.
func openPartial(dir, name string, digest v1.Hash, layout *Layout) (*partialFile, error) {
	base := name + "." + digest.Hex[:12] // tells a person what is in it
	atStep("create")
	p, err := takeOver(dir, base, layout)
	if err != nil || p != nil {
		return p, err
	}
	f, err := createTemp(dir, base, partialKind, 0o666)
	if err != nil {
		return nil, err
	}
	return beginPartial(f, f.Name(), layout, nil)
}

func takeOver(dir, base string, layout *Layout) (*partialFile, error) {
	for _, old := range partials(dir, base) {
		f := lockDead(old, time.Now(), 0)
		if f == nil {
			continue
		}
		path := filepath.Join(dir, uniqueName(base, partialKind))
		if os.Rename(old, path) != nil {
			_ = f.Close() // another was quicker
			continue
		}
		done := readJournal(old+journalKind, layout)
		_ = os.Remove(old + journalKind)
		return beginPartial(f, path, layout, done)
	}
	return nil, nil
}

// beginPartial makes a partial file of an open and locked one, which is at path.
func beginPartial(locked *os.File, path string, layout *Layout, done map[v1.Hash][]interval) (*partialFile, error) {
	p := &partialFile{lock: locked, done: done}
	var err error
	if p.file, err = duplicateAs(locked, path); err != nil {
		_ = os.Remove(path)
		_ = locked.Close()
		return nil, err
	}
	if err := p.begin(layout); err != nil {
		p.discard = true
		p.close()
		return nil, err
	}
	return p, nil
}

// duplicate returns another handle of an open file.
func duplicate(f *os.File) (*os.File, error) { return duplicateAs(f, f.Name()) }

func duplicateAs(f *os.File, name string) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "dup", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// begin makes the file's size right and opens the journal.
func (p *partialFile) begin(layout *Layout) error {
	if len(p.done) == 0 {
		if err := p.file.Truncate(0); err != nil {
			return err
		}
	}
	if err := p.file.Truncate(layout.Size()); err != nil {
		return err
	}
	log, err := rewriteJournal(p.file.Name()+journalKind, layout, p.done)
	if err != nil {
		return err
	}
	p.log, p.journal = log, &journal{log}
	return nil
}

// close gives the file up, for the next run or for good. What cannot be removed
// is no reason to fail: a later run sweeps it.
func (p *partialFile) close() {
	if p.discard {
		// Gone before the lock is. After a rename to the final name there is
		// nothing under this one.
		_ = os.Remove(p.file.Name())
		_ = os.Remove(p.file.Name() + journalKind)
	}
	_ = p.file.Close() // harmless if it is closed
	_ = p.lock.Close()
	if p.log != nil {
		_ = p.log.Close()
	}
}

func partials(dir, base string) []string { return temporaries(dir, base, partialKind) }

// temporaries returns the files that [createTemp] made of this base and kind.
func temporaries(dir, base, kind string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var found []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+base+".") && strings.HasSuffix(e.Name(), "."+kind) && e.Type().IsRegular() {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	return found
}

// lockDead opens and locks a partial file whose writer is dead and that was not
// written to for at least age; nil if that cannot be said.
func lockDead(path string, now time.Time, age time.Duration) *os.File {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	if isNetwork(f) {
		age = max(age, quietAfter)
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || ageOf(info.ModTime(), now) < age || unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil || !isAt(f, path) {
		_ = f.Close()
		return nil
	}
	return f
}

// sweepAbandoned removes those of the files, with the journal if there is one,
// whose writers are dead and that nobody touched for abandonedAfter.
func sweepAbandoned(paths []string, now time.Time) {
	for _, path := range paths {
		if f := lockDead(path, now, abandonedAfter); f != nil {
			_ = os.Remove(path)
			_ = os.Remove(path + journalKind)
			_ = f.Close()
		}
	}
}

// sweepPartials removes what dead writers of the tarball called name left and
// nobody took over for abandonedAfter, and journals without a partial file. It
// is best effort: what stays now is found again by the next writer.
func sweepPartials(dir, name string, now time.Time) {
	sweepAbandoned(partials(dir, name), now)
	entries, _ := os.ReadDir(dir) // what cannot be read cannot be swept
	for _, e := range entries {
		partial, ok := strings.CutSuffix(e.Name(), "."+partialKind+journalKind)
		if !ok || !strings.HasPrefix(partial, "."+name+".") {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, partial+"."+partialKind)); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
