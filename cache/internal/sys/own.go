package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrNotOwn is wrapped when a file is not what this user made under its name.
var ErrNotOwn = errors.New("not a file that this user made here")

// OpenOwn opens a file for reading and writing that an earlier process of this user made,
// in a directory that others may write to as well. They may have put anything in its
// place, such as a second name of a file that must not change. So what is opened is a
// regular file with one name that belongs to this process's effective user; otherwise the
// error wraps [ErrNotOwn]. Nothing is created or truncated, and no link is followed. All of
// that is checked on the open file. Where a file server gives all files to one user, even
// this user's own are refused.
//
// flags are more flags for [os.OpenFile], such as [os.O_APPEND].
func OpenOwn(path string, flags int) (*os.File, error) {
	f, err := openAlone(path, os.O_RDWR|flags)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !isMine(info) {
		err = fmt.Errorf("%s: %w: it belongs to another user", path, ErrNotOwn)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// openAlone opens a regular file that has one name, of any user.
func openAlone(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|NoFollow|NonBlock, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = IsAlone(info)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// IsAlone returns an error that wraps [ErrNotOwn] for what is no regular file with one
// name, and so was not made by this module. On a file system that does not count names
// it is not known.
func IsAlone(info os.FileInfo) error {
	switch n := links(info); {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: it is no regular file", ErrNotOwn)
	case n > 1:
		return fmt.Errorf("%w: the file has %d names (hard links)", ErrNotOwn, n)
	}
	return nil
}

// CreateOwn creates a file at path, open for reading and writing, which must not exist:
// the error wraps [fs.ErrExist] otherwise. Those who may write to its directory can open
// it, whatever the umask is, and no others. So a process that was killed shuts none of
// them out, and who may only read the directory cannot lock the file.
func CreateOwn(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := shareWithWriters(f, filepath.Dir(path)); err != nil {
		// It works for this user.
		_ = f.Chmod(0o600)
	}
	return f, nil
}

// shareWithWriters gives f the mode and group with which those can open it who may
// write to dir.
func shareWithWriters(f *os.File, dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	mode := writers(info.Mode())
	// Where the group may do what all may, it does not matter which it is.
	if mode>>3&0o6 != mode&0o6 {
		if err := giveGroup(f, info); err != nil {
			return err
		}
	}
	return f.Chmod(mode)
}

// writers returns the mode that lets those read and write a file who may create one in
// a directory.
func writers(dir fs.FileMode) fs.FileMode {
	mode := fs.FileMode(0o600)
	if dir&0o030 == 0o030 {
		mode |= 0o060
	}
	if dir&0o003 == 0o003 {
		mode |= 0o006
	}
	return mode
}
