package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxFileName is NAME_MAX: the longest name of a file in bytes.
const maxFileName = 255

// createTemp creates a new file .<base>.<unique>.<kind> in dir, open for
// reading and writing, with mode perm before the umask. It holds a lock on the
// file, which tells others that its writer is alive: the kernel drops it
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
		path := filepath.Join(dir, uniqueName(base, kind))
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		// Another process may have seen the file before it was locked, and taken
		// it for a dead one's. Then it is that one's. Where locks do not work
		// (some NFS mounts) the file is protected by its age, see lockDead.
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) || !isAt(f, path) {
			_ = f.Close()
			continue
		}
		return f, nil
	}
	return nil, fmt.Errorf("create a temporary file for %s in %s: every name that was tried exists", base, dir)
}

func uniqueName(base, kind string) string {
	return fmt.Sprintf(".%s.%016x.%s", base, rand.Uint64(), kind)
}

// isAt tells whether path names the file f.
func isAt(f *os.File, path string) bool {
	have, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(have, there)
}
