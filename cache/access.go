package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
)

// setAccess gives a file that will be published the mode and group that the
// directory's options ask for.
func (d *Dir) setAccess(f *os.File) error {
	if d.group >= 0 {
		if err := f.Chown(-1, d.group); err != nil {
			return fmt.Errorf("give the tarball to the group: %w", err)
		}
	}
	if d.mode != 0 {
		if err := f.Chmod(d.mode); err != nil {
			return fmt.Errorf("set the tarball's mode: %w", err)
		}
	}
	return nil
}

// groupID returns the number of a group, -1 for none.
func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return -1, err
	}
	return strconv.Atoi(g.Gid)
}

// makeDir creates the last element of path with a mode, whatever the umask is.
// One that exists keeps its own.
func makeDir(path string, mode fs.FileMode) error {
	err := os.Mkdir(path, mode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// isNetworkAt is [isNetwork] of a directory.
func isNetworkAt(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return isNetwork(f)
}
