package cache

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/dockercache/dockercache/internal/wait"
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
	log     *os.File   // the journal's
	discard bool       // remove both on close
	from    *abandoned // whose bytes are to be copied into the file; nil: none
}

// openPartial adopts what a dead writer of the same image left, or creates a new file.
// Where the writer may live, the new file gets a copy of what it wrote, see
// [partialFile.copyAbandoned].
func openPartial(dir, name string, digest v1.Hash, layout *tarball.Layout) (*partialFile, error) {
	base := name + "." + digest.Hex[:12] // so that a person sees what is in it
	sys.AtStep("create")
	var from *abandoned
	for _, path := range sys.Temporaries(dir, base, partialKind) {
		a := openAbandoned(path, layout)
		switch {
		case a == nil:
		case a.dead && (len(a.done) == 0 || a.settle() != nil):
			a.remove() // nothing in it can be used
		case a.dead:
			if p := adopt(a, dir, base, layout); p != nil {
				from.close()
				return p, nil
			}
		case from == nil && len(a.done) > 0:
			from = a
		default:
			a.close()
		}
	}
	p, err := createPartial(dir, base, layout)
	if err != nil {
		from.close()
		return nil, err
	}
	p.from = from
	return p, nil
}

// createPartial creates a new file. The journal comes first: a partial file of which
// the writer is not known stays until it is old.
func createPartial(dir, base string, layout *tarball.Layout) (*partialFile, error) {
	for range 100 {
		p := &partialFile{discard: true}
		path := filepath.Join(dir, sys.UniqueName(base, partialKind))
		if err := p.beginJournal(path, layout); err != nil {
			return nil, err
		}
		f, err := sys.CreateLocked(path, 0o666)
		if err == nil {
			err = p.begin(f, path, layout)
		}
		if err == nil {
			p.discard = false
			return p, nil
		}
		p.close()
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("create a partial file in %s: every name that was tried exists", dir)
}

// beginJournal begins the journal of the partial file that is or will be at path, with
// what is done and no more, so that it does not grow from attempt to attempt.
func (p *partialFile) beginJournal(path string, layout *tarball.Layout) (err error) {
	if p.log, err = os.OpenFile(path+journalKind, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o666); err != nil {
		return err
	}
	if p.journal, err = fetch.NewJournal(p.log, layout, sys.Writer(p.log), p.done); err != nil {
		p.discard = true
		p.close()
	}
	return err
}

// begin makes a locked file, which is at path, the partial file, of the right size.
func (p *partialFile) begin(locked *os.File, path string, layout *tarball.Layout) (err error) {
	p.lock = locked
	if p.file, err = sys.Duplicate(locked, path); err != nil {
		_ = os.Remove(path)
		return err
	}
	return p.file.Truncate(layout.Size())
}

// adopt makes a dead writer's file this one's, nil if that cannot be done.
//
// Adopting is a rename to a new unique name: of any number of processes, on any number
// of hosts, one succeeds.
func adopt(a *abandoned, dir, base string, layout *tarball.Layout) *partialFile {
	p := &partialFile{done: a.done}
	path := filepath.Join(dir, sys.UniqueName(base, partialKind))
	if p.beginJournal(path, layout) != nil {
		a.remove() // its room is needed
		return nil
	}
	err := os.Rename(a.file.Name(), path)
	if err == nil {
		_ = os.Remove(a.file.Name() + journalKind)
		err = p.begin(a.file, path, layout)
	}
	if err != nil { // another was quicker, perhaps
		p.discard = true
		p.close()
		a.close()
		return nil
	}
	return p
}

// close gives the file up, for the next attempt or for good. What cannot be removed
// is no reason to fail: a later attempt sweeps it.
func (p *partialFile) close() {
	if p.discard {
		// Gone before the lock is. After a rename to the final name there is
		// nothing under this one.
		if p.file != nil {
			_ = os.Remove(p.file.Name())
		}
		_ = os.Remove(p.log.Name())
	}
	for _, f := range []*os.File{p.file, p.lock, p.log} {
		_ = f.Close() // harmless if it is closed, or nil
	}
	p.from.close()
}

// An abandoned file is a partial file that its writer has left, or seems to have.
type abandoned struct {
	file *os.File // locked, where locks work, by this process or its writer
	done map[v1.Hash][]sys.Interval
	dead bool // its writer is, so that it can be adopted
	old  bool // not written to for so long that its writer seems to be dead
}

// openAbandoned opens a partial file, nil if there is none. Nothing in it is believed yet. It
// may be locked only where this kernel has written all that is in it: by a writer that is not
// waited for any more.
//
// It can be adopted only if no other process can write to it any more: a process that was
// suspended with its machine, or hangs in a mount, goes on when the file is long
// published under its final name. And only if it is this user's and has this one name.
func openAbandoned(path string, layout *tarball.Layout) *abandoned {
	f := sys.LockDead(path, time.Now(), 0)
	free := f != nil
	if !free {
		if f, _ = sys.OpenToRead(path, sys.NoFollow); f == nil {
			return nil
		}
		if held, _ := sys.TryLockShared(f); !held || sys.IsNetwork(f) {
			_ = f.Close()
			return nil
		}
	}
	done, writer := readJournal(path+journalKind, layout)
	info, err := f.Stat()
	return &abandoned{
		file: f, done: done, dead: free && sys.IsOwn(f) && sys.IsDead(f, writer),
		old: free && err == nil && sys.Age(info.ModTime(), time.Now()) >= sys.QuietAfter,
	}
}

// settle makes sure that what is read of the file is what the disk has. When the kernel
// could not write a page, it counts as written, and reads back right, until memory
// forgets it: the error was that writer's, which may have been killed with it. An error
// means that nothing in the file can be believed.
func (a *abandoned) settle() error {
	sys.AtStep("settle")
	if err := sys.Flush(a.file); err != nil {
		return err
	}
	return sys.Drop(a.file)
}

// remove removes the file, and closes it. A writer that lives fetches its layers again:
// it cannot publish a file without a name.
func (a *abandoned) remove() {
	if sys.IsAt(a.file, a.file.Name()) {
		_ = os.Remove(a.file.Name())
		_ = os.Remove(a.file.Name() + journalKind)
	}
	a.close()
}

func (a *abandoned) close() {
	if a != nil {
		_ = a.file.Close()
	}
}

// copyAbandoned takes what a writer that may live has left: cloned if possible, else
// copied, and hashed like all else. Then that writer's file is removed if it is old, so
// that its room is not taken twice. What cannot be copied is fetched. The error is that of
// ctx.
func (p *partialFile) copyAbandoned(ctx context.Context, layout *tarball.Layout, room func(need int64) error) error {
	if p.from == nil {
		return nil
	}
	need, done := int64(0), map[v1.Hash][]sys.Interval{}
	for _, all := range p.from.done {
		for _, i := range all {
			need += i.To - i.From
		}
	}
	err := room(need)
	for _, l := range layout.Layers() {
		for _, i := range p.from.done[l.Blob] {
			if err == nil {
				err = sys.CloneOrCopy(ctx, p.file, p.from.file, l.Offset+i.From, l.Offset+i.To)
			}
			if err == nil {
				done[l.Blob] = append(done[l.Blob], i)
				p.journal.Add(l.Blob, i.From, i.To)
			}
		}
	}
	if ctx.Err() != nil {
		return wait.Err(ctx)
	}
	p.done = done
	if p.from.old {
		p.from.remove()
	} else {
		p.from.close()
	}
	p.from = nil
	return nil
}

// maxJournal bounds what is read of a journal: 20 GB in steps of 1 MiB with
// lines of 100 bytes are 2 MB.
const maxJournal = 64 << 20

// readJournal returns what the journal at path says, which is nothing if it is
// not a file of its own: a link might lead anywhere, and a pipe never end.
func readJournal(path string, layout *tarball.Layout) (done map[v1.Hash][]sys.Interval, writer string) {
	f, err := os.OpenFile(path, os.O_RDONLY|sys.NoFollow|sys.NonBlock, 0)
	if err != nil {
		return nil, ""
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxJournal {
		return nil, ""
	}
	content, err := io.ReadAll(io.LimitReader(f, maxJournal))
	if err != nil {
		return nil, ""
	}
	done, writer = fetch.ParseJournal(content, layout)
	if !sys.IsOwn(f) {
		writer = "" // another user may have written anything
	}
	return done, writer
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
