package cache

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/fetch"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

const (
	partialKind = "partial"
	journalKind = ".journal" // follows the partial file's whole name
)

// A partialFile is a tarball in the making: the file, locked, and its journal.
type partialFile struct {
	file    *os.File
	lock    *os.File                   // the same open file: holds the lock while file is closed and renamed
	done    map[v1.Hash][]sys.Interval // what an earlier attempt wrote
	journal *fetch.Journal
	log     *os.File // the journal's
	discard bool     // remove both on close
}

// openPartial adopts what a dead writer of the same image left, or creates
// a new file.
func openPartial(dir, name string, digest v1.Hash, layout *tarball.Layout) (*partialFile, error) {
	base := name + "." + digest.Hex[:12] // so that a person sees what is in it
	sys.AtStep("create")
	p, err := adopt(dir, base, layout)
	if err != nil || p != nil {
		return p, err
	}
	f, err := sys.CreateTemp(dir, base, partialKind, 0o666)
	if err != nil {
		return nil, err
	}
	return beginPartial(f, f.Name(), layout, nil)
}

// adopt takes a dead writer's partial file, nil if there is none.
//
// Adopting is a rename to a new unique name: of any number of processes, on
// any number of hosts, one succeeds. Should the old owner be alive after all,
// its file is gone from under its name, so it cannot publish it; and until it
// notices, it writes the same bytes to the same places.
func adopt(dir, base string, layout *tarball.Layout) (*partialFile, error) {
	for _, old := range sys.Temporaries(dir, base, partialKind) {
		f := sys.LockDead(old, time.Now(), 0)
		if f == nil {
			continue
		}
		path := filepath.Join(dir, sys.UniqueName(base, partialKind))
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
func beginPartial(locked *os.File, path string, layout *tarball.Layout, done map[v1.Hash][]sys.Interval) (*partialFile, error) {
	p := &partialFile{lock: locked, done: done}
	var err error
	if p.file, err = sys.Duplicate(locked, path); err != nil {
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

// begin makes the file's size right and begins a journal with what is done and no more,
// so that it does not grow from attempt to attempt.
func (p *partialFile) begin(layout *tarball.Layout) (err error) {
	if len(p.done) == 0 {
		if err := p.file.Truncate(0); err != nil {
			return err
		}
	}
	if err := p.file.Truncate(layout.Size()); err != nil {
		return err
	}
	if p.log, err = os.OpenFile(p.file.Name()+journalKind, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o666); err != nil {
		return err
	}
	p.journal, err = fetch.NewJournal(p.log, layout, p.done)
	return err
}

// close gives the file up, for the next attempt or for good. What cannot be removed
// is no reason to fail: a later attempt sweeps it.
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

// maxJournal bounds what is read of a journal: 20 GB in steps of 1 MiB with
// lines of 100 bytes are 2 MB.
const maxJournal = 64 << 20

// readJournal returns what the journal at path says, which is nothing if it is
// not a file of its own: a link might lead anywhere, and a pipe never end.
func readJournal(path string, layout *tarball.Layout) map[v1.Hash][]sys.Interval {
	f, err := os.OpenFile(path, os.O_RDONLY|sys.NoFollow|sys.NonBlock, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxJournal {
		return nil
	}
	content, err := io.ReadAll(io.LimitReader(f, maxJournal))
	if err != nil {
		return nil
	}
	return fetch.ParseJournal(content, layout)
}

// sweepPartials removes what dead writers of the tarball called name left and
// no other adopted for [sys.AbandonedAfter], and journals without a partial file. It
// is best effort: what stays now is found again by the next writer.
func sweepPartials(dir, name string, now time.Time) {
	sys.SweepAbandoned(sys.Temporaries(dir, name, partialKind), now, journalKind)
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
