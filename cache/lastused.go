package cache

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// A record is the content of a small file beside a tarball, .<tarball>.mark. The
// file's time is when the tarball was last used. The content says which newer run
// found the tarball to be what it had built as well: without that, a run in between
// could replace it by something older. And it says to which group the tarball
// belongs, where its name does not.
//
// It is best effort. A tarball without a record was last used when it was written, and
// is of the run that is recorded in it.
type record struct {
	// Digest is the manifest's: a record of another tarball does not count.
	Digest v1.Hash `json:"digest"`
	tarball.Run
	Group string `json:"group,omitempty"`
}

const (
	markKind = "mark"
	// touchEvery is how long a tarball may be used without its record saying so:
	// prune does not care for minutes, and a shared file system for each write.
	touchEvery = time.Hour
	maxRecord  = 4 << 10
)

func markPath(dir, name string) string { return filepath.Join(dir, "."+name+"."+markKind) }

// readRecord returns the record of the tarball called name, and when that was last
// used; the zero time if that is not known.
func readRecord(dir, name string) (r record, used time.Time) {
	f, err := os.OpenFile(markPath(dir, name), os.O_RDONLY|sys.NoFollow|sys.NonBlock, 0)
	if err != nil {
		return record{}, time.Time{}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return record{}, time.Time{}
	}
	if raw, err := io.ReadAll(io.LimitReader(f, maxRecord)); err != nil || json.Unmarshal(raw, &r) != nil {
		r = record{}
	}
	return r, info.ModTime()
}

// setUsed records that a tarball is used now, for run and group if those are known.
// It writes only what is new.
func setUsed(dir, name string, t *tarball.Info, run tarball.Run, group string, now time.Time) {
	was, used := readRecord(dir, name)
	is := record{Digest: t.Image.Digest()}
	if was.Digest == is.Digest {
		is.Run, is.Group = was.Run, was.Group
	}
	write := false
	if isKnownAfter(run, runOf(t, was)) {
		is.Run, write = run, true
	}
	if group != "" && group != groupOf(name, t, was) {
		is.Group, write = group, true
	}
	touch(dir, name, is, write, used, now)
}

// touch writes a record where write says so, and makes its time now, if the time
// before is long ago.
func touch(dir, name string, r record, write bool, used, now time.Time) {
	path := markPath(dir, name)
	if !write && !used.IsZero() {
		if now.Sub(used).Abs() < touchEvery || !errors.Is(os.Chtimes(path, now, now), fs.ErrPermission) {
			return
		}
		write = r.Run.ID != 0 || r.Group != "" // another user's: one of this user takes its place
	}
	const flags = os.O_WRONLY | os.O_CREATE | sys.NoFollow | sys.NonBlock
	f, err := os.OpenFile(path, flags, 0o666)
	if errors.Is(err, fs.ErrPermission) && sys.Unlink(path) == nil {
		f, err = os.OpenFile(path, flags|os.O_EXCL, 0o666)
	}
	if err != nil {
		return // without the permission nothing is recorded
	}
	defer f.Close()
	if write {
		// Versions before this one read 1 KiB: nothing may grow by escapes.
		var raw bytes.Buffer
		e := json.NewEncoder(&raw)
		e.SetEscapeHTML(false)
		_ = e.Encode(r) // strings and numbers: cannot fail
		_ = f.Truncate(0)
		_, _ = f.Write(bytes.TrimSpace(raw.Bytes()))
	}
}

// Touch records that the tarball called name is used now, which makes
// [Dir.Prune] take others first. It is best effort: without the permission to write
// there nothing is recorded. It does not look into the file. The errors:
// [ErrInvalidName]; [fs.ErrNotExist]; that of ctx.
func (d *Dir) Touch(ctx context.Context, name string) error {
	if err := wait.Err(ctx); err != nil {
		return err
	}
	path, err := d.tarballPath(name)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return err
	}
	r, used := readRecord(d.path, name)
	touch(d.path, name, r, false, used, d.now())
	return nil
}

// runOf returns the newest run that a tarball is known to be of, with its record.
func runOf(t *tarball.Info, r record) tarball.Run {
	if r.Digest == t.Image.Digest() && isKnownAfter(r.Run, t.Provenance.Run) {
		return r.Run
	}
	return t.Provenance.Run
}

// isKnownAfter reports whether run says more than other does: it is newer, or the only
// one that is known.
func isKnownAfter(run, other tarball.Run) bool {
	return run.NewerThan(other) || run.ID != 0 && other.ID == 0
}

// groupOf returns the group of a tarball: what its record says, or else its name.
func groupOf(name string, t *tarball.Info, r record) string {
	if r.Digest == t.Image.Digest() && r.Group != "" {
		return r.Group
	}
	return nameGroup(name)
}

// nameGroup is the group of a tarball of which none was recorded: the name without
// "_<suffix>.tar".
func nameGroup(name string) string {
	name = strings.TrimSuffix(name, ".tar")
	if i := strings.LastIndexByte(name, '_'); i > 0 {
		return name[:i]
	}
	return name
}

// previousKind is the end of the name of a version that was replaced and stays for
// readers that still have it open: .<tarball>.<time, s>.<unique>.retired.
const previousKind = "retired"

// keepPrevious gives the file at path, which is about to be replaced, a second name.
// On NFS a reader on another host would otherwise get ESTALE in the middle. Where
// there are no hard links nothing is done.
func keepPrevious(path string, now time.Time) {
	dir, name := filepath.Split(path)
	_ = os.Link(path, filepath.Join(dir, fmt.Sprintf(".%s.%d.%016x.%s", name, now.Unix(), rand.Uint64(), previousKind)))
}

// sweepGrace is how long a previous version stays that is there. Where none are made
// they may be those of hosts for which this directory is on a network.
func (d *Dir) sweepGrace() time.Duration { return cmp.Or(d.grace, DefaultGrace) }

// sweepPrevious removes the previous versions of the tarball called name that were
// replaced longer than grace ago.
func sweepPrevious(dir, name string, grace time.Duration, now time.Time) {
	for _, path := range sys.Temporaries(dir, name, previousKind) {
		if at, ok := replacedAt(path); ok && sys.Age(at, now) >= grace {
			_ = os.Remove(path)
		}
	}
}

// replacedAt returns when a previous version was replaced, which its name says.
func replacedAt(path string) (time.Time, bool) {
	parts := strings.Split(filepath.Base(path), ".")
	if len(parts) < 4 {
		return time.Time{}, false
	}
	var seconds int64
	if n, err := fmt.Sscanf(parts[len(parts)-3], "%d", &seconds); n != 1 || err != nil {
		return time.Time{}, false
	}
	return time.Unix(seconds, 0), true
}
