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
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/marks"
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
// A record is never written over: it may be another user's, or anything that has been put
// there. A new one takes its place. Where that is not allowed, as in a directory with the
// sticky bit, it is written beside, as .<tarball>.<user>.mark, and all of them count.
//
// A tarball without a record was last used when it was written, and
// is of the run that is recorded in it.
type record struct {
	// Digest is the manifest's: a record of another tarball does not count.
	Digest v1.Hash `json:"digest"`
	tarball.Run
	Group string `json:"group,omitempty"`
}

// records are all of one tarball, the one that was written last at the end.
type records []record

// of returns what records contain about the tarball with this digest together.
func (r records) of(digest v1.Hash) record {
	sum := record{Digest: digest}
	for _, one := range r {
		if one.Digest != digest {
			continue
		}
		if isKnownAfter(one.Run, sum.Run) {
			sum.Run = one.Run
		}
		if one.Group != "" {
			sum.Group = one.Group
		}
	}
	return sum
}

const (
	// touchEvery is how long a tarball may be used without its record saying so:
	// prune does not care for minutes, and a shared file system for each write.
	touchEvery = time.Hour
	maxRecord  = 4 << 10
)

func markPath(dir, name string) string { return filepath.Join(dir, "."+name+"."+marks.Kind) }

// userMarkPath is where a record is that cannot be at markPath.
func userMarkPath(dir, name string) string {
	return filepath.Join(dir, fmt.Sprintf(".%s.%d.%s", name, os.Geteuid(), marks.Kind))
}

// marksOf returns the names of the records in a directory, by tarball.
func marksOf(dir string) map[string][]string {
	names := map[string][]string{}
	entries, _ := os.ReadDir(dir) // what cannot be read is not known
	for _, e := range entries {
		if tarball := marks.TarballOf(e.Name()); tarball != "" {
			names[tarball] = append(names[tarball], e.Name())
		}
	}
	return names
}

// readRecord returns the records of the tarball called name, and when that was last
// used; the zero time if that is not known.
func readRecord(dir, name string) (records, time.Time) {
	all, used, _ := readRecords(dir, marksOf(dir)[name])
	return all, used
}

// readRecords reads the records in the files called marks. The error is that of one that
// cannot be read, for it may name a newer run.
func readRecords(dir string, marks []string) (all records, used time.Time, err error) {
	type dated struct {
		record
		at time.Time
	}
	var found []dated
	for _, mark := range marks {
		r, at, readErr := readMark(filepath.Join(dir, mark))
		for range maxReopens { // on NFS another host may have replaced it just now
			if !errors.Is(readErr, syscall.ESTALE) {
				break
			}
			r, at, readErr = readMark(filepath.Join(dir, mark))
		}
		found = append(found, dated{r, at})
		if at.After(used) {
			used = at
		}
		err = cmp.Or(err, readErr)
	}
	slices.SortStableFunc(found, func(a, b dated) int { return a.at.Compare(b.at) })
	for _, f := range found {
		all = append(all, f.record)
	}
	return all, used, err
}

// readMark reads one record, which is none if it is no file of this package. The error is
// that of one that may be.
func readMark(path string) (r record, used time.Time, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|sys.NoFollow|sys.NonBlock, 0)
	if errors.Is(err, fs.ErrPermission) { // of a version that followed the umask
		info, statErr := os.Lstat(path)
		if statErr != nil || sys.IsAlone(info) != nil {
			return record{}, time.Time{}, nil
		}
		return record{}, info.ModTime(), err
	}
	if err != nil {
		return record{}, time.Time{}, nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || sys.IsAlone(info) != nil {
		return record{}, time.Time{}, nil
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil || json.Unmarshal(raw, &r) != nil {
		r = record{}
	}
	return r, info.ModTime(), err
}

// setUsed records that a tarball is used now, for run and group if those are known.
// It writes only what is new. The error is why a run or a group could not be recorded,
// or that it is not known whether a newer run is; the time of use is best effort.
func setUsed(dir, name string, t *tarball.Info, run tarball.Run, group string, now time.Time) error {
	all, used, unread := readRecords(dir, marksOf(dir)[name])
	is := all.of(t.Image.Digest())
	write := false
	if isKnownAfter(run, runOf(t, all)) {
		is.Run, write = run, true
	}
	if group != "" && group != groupOf(name, t, all) {
		is.Group, write = group, true
	}
	if !write {
		touch(dir, name, is, used, now)
		return unread
	}
	if err := writeMark(dir, name, is, now); err != nil {
		return fmt.Errorf("record the build run and group of %s: %w", name, err)
	}
	return nil
}

// touch makes the time of a tarball's record now, if the time before is long ago. Where
// this user has none, r becomes it.
func touch(dir, name string, r record, used, now time.Time) {
	if !used.IsZero() && now.Sub(used).Abs() < touchEvery {
		return
	}
	for _, path := range []string{markPath(dir, name), userMarkPath(dir, name)} {
		// A full disk is no reason not to.
		if f, err := sys.OpenOwn(path, 0); err == nil {
			err = sys.SetTime(f, now)
			if _ = f.Close(); err == nil {
				return
			}
		}
	}
	_ = writeMark(dir, name, r, now)
}

// writeMark writes a record into a new file, which takes the place of the one before if
// that is allowed, and stands beside it if not, or if it may contain more.
func writeMark(dir, name string, r record, now time.Time) error {
	var content bytes.Buffer
	if r.Run.ID != 0 || r.Group != "" {
		// Versions before this one read 1 KiB: nothing may grow by escapes.
		e := json.NewEncoder(&content)
		e.SetEscapeHTML(false)
		_ = e.Encode(r) // strings and numbers: cannot fail
	}
	f, err := sys.CreateTemp(dir, name, "tmp", 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(bytes.TrimSpace(content.Bytes()))
	if err == nil && content.Len() > 0 {
		// Otherwise a run is believed until the next mount, and an older one replaces
		// the tarball after it.
		err = sys.Flush(f)
	}
	if err == nil {
		_ = sys.ShareWithReaders(f, dir)
		_ = sys.SetTime(f, now)
		paths := []string{markPath(dir, name), userMarkPath(dir, name)}
		if _, _, unread := readMark(paths[0]); unread != nil {
			paths = paths[1:]
		}
		for _, path := range paths {
			if err = os.Rename(f.Name(), path); err == nil {
				return nil
			}
		}
	}
	_ = sys.Unlink(f.Name())
	return err
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
	all, used := readRecord(d.path, name)
	var r record
	if len(all) > 0 {
		r = all.of(all[len(all)-1].Digest) // a new one contains what the last one does
	}
	touch(d.path, name, r, used, d.now())
	return nil
}

// runOf returns the newest run that a tarball is known to be of, with its records.
func runOf(t *tarball.Info, all records) tarball.Run {
	if r := all.of(t.Image.Digest()); isKnownAfter(r.Run, t.Provenance.Run) {
		return r.Run
	}
	return t.Provenance.Run
}

// isKnownAfter reports whether run says more than other does: it is newer, or the only
// one that is known.
func isKnownAfter(run, other tarball.Run) bool {
	return run.NewerThan(other) || run.ID != 0 && other.ID == 0
}

// groupOf returns the group of a tarball: that in its records, or else its name.
func groupOf(name string, t *tarball.Info, all records) string {
	if r := all.of(t.Image.Digest()); r.Group != "" {
		return r.Group
	}
	return DefaultGroup(name)
}

// DefaultGroup is the group of a tarball of which none was recorded: the name without
// "_<suffix>.tar".
func DefaultGroup(name string) string {
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
