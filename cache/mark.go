package cache

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// A mark is a small file beside a tarball, .<tarball>.mark. Its time is when the
// tarball was last used, and its content tells which newer run found the tarball
// to be what it had built as well: without that, a run in between could replace
// it by something older.
//
// It is best effort. A tarball without a mark was used when it was written, and
// by the run that is recorded in it.
type mark struct {
	// Digest is the manifest's: a mark of another tarball says nothing.
	Digest v1.Hash `json:"digest"`
	Run
}

const (
	markKind = "mark"
	// markEvery is how long a tarball may be used without its mark saying so:
	// prune does not care for minutes, and a shared file system for each write.
	markEvery = time.Hour
	maxMark   = 1 << 10
)

func markPath(dir, name string) string { return filepath.Join(dir, "."+name+"."+markKind) }

// readMark returns the mark of the tarball called name, and when that was last
// used; the zero time if that is not known.
func readMark(dir, name string) (m mark, used time.Time) {
	f, err := os.OpenFile(markPath(dir, name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return mark{}, time.Time{}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return mark{}, time.Time{}
	}
	if raw, err := io.ReadAll(io.LimitReader(f, maxMark)); err != nil || json.Unmarshal(raw, &m) != nil {
		m = mark{}
	}
	return m, info.ModTime()
}

// setMark says that a tarball is used now, for run if that is known. It writes
// only what is new.
func setMark(dir, name string, t *Tarball, run Run, now time.Time) {
	was, used := readMark(dir, name)
	path := markPath(dir, name)
	newer := run.knownAfter(t.runWith(was))
	if !newer && !used.IsZero() {
		if now.Sub(used).Abs() < markEvery || !errors.Is(os.Chtimes(path, now, now), fs.ErrPermission) {
			return
		}
		run = was.Run // another user's: a mark of this one takes its place
		newer = was.Digest == t.Image.Digest() && run.ID != 0
	}
	const flags = os.O_WRONLY | os.O_CREATE | unix.O_NOFOLLOW | unix.O_NONBLOCK
	f, err := os.OpenFile(path, flags, 0o666)
	if errors.Is(err, fs.ErrPermission) && unlink(path) == nil {
		f, err = os.OpenFile(path, flags|os.O_EXCL, 0o666)
	}
	if err != nil {
		return // whoever may not has marked nothing
	}
	defer f.Close()
	if newer {
		raw, _ := json.Marshal(mark{t.Image.Digest(), run}) // strings and numbers: cannot fail
		_ = f.Truncate(0)
		_, _ = f.Write(raw)
	}
}

// MarkUsed notes that a tarball of the directory is used now, which makes
// [Dir.Prune] take others first. It is best effort: whoever may not write there
// notes nothing.
func (d *Dir) MarkUsed(t *Tarball) {
	setMark(d.path, filepath.Base(t.Path), t, Run{}, d.now())
}

// runWith returns the newest run that the tarball is known to be of, with what
// its mark says.
func (t *Tarball) runWith(m mark) Run {
	if m.Digest == t.Image.Digest() && m.Run.knownAfter(t.Provenance.Run) {
		return m.Run
	}
	return t.Provenance.Run
}
