package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// maxFileName is NAME_MAX: the longest name of a file in bytes.
	maxFileName = 255
	// AbandonedAfter is how long a temporary file whose writer is dead stays, for the
	// next attempt to go on with.
	AbandonedAfter = time.Hour
	// quietAfter is how long a temporary file on a network file system must be
	// untouched before its writer counts as dead: there a lock that can be had does
	// not show it, since it may not reach from host to host. A live writer is
	// quiet for 30 s at most, its longest wait.
	quietAfter = 2 * time.Minute
)

// CreateTemp creates a new file .<base>.<unique>.<kind> in dir, open for
// reading and writing, with mode perm before the umask. It holds a lock on the
// file, which shows others that its writer is alive: the kernel drops it
// when the process ends, however it ends.
//
// The unique part keeps two writers apart.
func CreateTemp(dir, base, kind string, perm fs.FileMode) (*os.File, error) {
	const unique = 16 // digits of a uint64 in base 16
	if most := maxFileName - unique - len("...") - len(kind); len(base) > most {
		base = base[:most]
	}
	for range 100 {
		path := filepath.Join(dir, UniqueName(base, kind))
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		// Another process may have seen the file before it was locked, and taken
		// it for a dead one's. Then it is that one's. Where locks do not work
		// (some NFS mounts) the file is protected by its age, see [LockDead].
		if held, _ := TryLock(f); held || !IsAt(f, path) {
			_ = f.Close()
			continue
		}
		return f, nil
	}
	return nil, fmt.Errorf("create a temporary file for %s in %s: every name that was tried exists", base, dir)
}

// UniqueName returns a new name of the form that [CreateTemp] gives.
func UniqueName(base, kind string) string {
	return fmt.Sprintf(".%s.%016x.%s", base, rand.Uint64(), kind)
}

// Temporaries returns the paths of the files that [CreateTemp] made in dir of this
// base and kind.
func Temporaries(dir, base, kind string) []string {
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

// LockDead opens, as [OpenOwn] does, and locks a temporary file whose writer is dead and
// that was not written to for at least age; nil if that is not sure.
func LockDead(path string, now time.Time, age time.Duration) *os.File {
	f, err := OpenOwn(path, 0)
	if err != nil {
		return nil
	}
	return ifDead(f, path, now, age)
}

// LockToRemove is [LockDead] for a file that will not be written but removed, of any user.
func LockToRemove(path string, now time.Time, age time.Duration) *os.File {
	f, err := OpenToLock(path)
	if err != nil {
		return nil
	}
	return ifDead(f, path, now, age)
}

func ifDead(f *os.File, path string, now time.Time, age time.Duration) *os.File {
	if IsNetwork(f) {
		age = max(age, quietAfter)
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() && Age(info.ModTime(), now) >= age {
		if held, err := TryLock(f); !held && err == nil && IsAt(f, path) {
			return f
		}
	}
	_ = f.Close()
	return nil
}

// SweepAbandoned removes those of the files, with the files beside them that have
// these further endings, whose writers are dead and that were not touched for
// [AbandonedAfter].
func SweepAbandoned(paths []string, now time.Time, beside ...string) {
	for _, path := range paths {
		if f := LockToRemove(path, now, AbandonedAfter); f != nil {
			_ = Unlink(path)
			for _, ending := range beside {
				_ = Unlink(path + ending)
			}
			_ = f.Close()
		}
	}
}
