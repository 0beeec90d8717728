package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxFileName is NAME_MAX: the longest name of a file in bytes.
const maxFileName = 255

// createTemp creates a new file .<base>.<unique>.<kind> in dir, open for
// reading and writing, with mode perm before the umask. It holds a lock on the
// file, which tells [sweepTemp] that its writer is alive: the kernel drops it
// when the process ends, however it ends.
//
// The unique part is what keeps two writers apart. The workflow that this
// project replaces had one fixed name, and its writers met in it.
func createTemp(dir, base, kind string, perm fs.FileMode) (*os.File, error) {
	const unique = 16 // digits of a uint64 in base 16
	if most := maxFileName - unique - len("...") - len(kind); len(base) > most {
		base = base[:most]
	}
	for range 100 {
		path := filepath.Join(dir, fmt.Sprintf(".%s.%0*x.%s", base, unique, rand.Uint64(), kind))
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		// Where locks do not work (some NFS mounts) the file is protected by
		// its age alone, see sweepTemp.
		_ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		return f, nil
	}
	return nil, fmt.Errorf("create a temporary file for %s in %s: every name that was tried exists", base, dir)
}

// abandonedAfter is how long a temporary file must be untouched before another
// writer removes it. A live writer writes all the time; the lock alone is no
// proof of death, since it does not reach from host to host on every NFS mount.
const abandonedAfter = time.Hour

// sweepTemp removes what dead writers of base left in dir: files that
// [createTemp] made, that nobody holds a lock on and that were not written to
// for abandonedAfter before now. It is best effort: what cannot be removed now
// is found again by the next writer.
func sweepTemp(dir, base, kind string, now time.Time) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "."+base+".") || !strings.HasSuffix(e.Name(), "."+kind) || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err != nil || now.Sub(info.ModTime()) < abandonedAfter {
			continue
		}
		removeUnlocked(filepath.Join(dir, e.Name()))
	}
}

func removeUnlocked(path string) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = os.Remove(path)
	}
}
