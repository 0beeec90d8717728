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
	f, err := os.OpenFile(path, os.O_RDWR|flags|NoFollow|NonBlock, 0)
	if err != nil {
		return nil, err
	}
	if err := checkOwn(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// IsOwn reports whether an open file is what [OpenOwn] opens.
func IsOwn(f *os.File) bool { return checkOwn(f) == nil }

func checkOwn(f *os.File) error {
	info, err := f.Stat()
	if err == nil {
		err = IsAlone(info)
	}
	if err == nil && !isMine(info) {
		err = fmt.Errorf("%w: it belongs to another user", ErrNotOwn)
	}
	return err
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

// OnlyTrustedWrite reports whether only this process's effective user and root can have written
// to a file, as far as its owner and mode say: it belongs to one of them, and others may not.
func OnlyTrustedWrite(info os.FileInfo) bool {
	return info.Mode()&0o022 == 0 && (isMine(info) || isRoots(info))
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
	if err := share(f, filepath.Dir(path), writers); err != nil {
		_ = f.Chmod(0o600) // it works for this user
	}
	return f, nil
}

// ShareWithReaders lets those read f who may list the directory that it is in, whatever
// the umask was.
func ShareWithReaders(f *os.File, dir string) error { return share(f, dir, readers) }

// share gives f a mode that follows from that of dir, and dir's group where it matters.
func share(f *os.File, dir string, modeOf func(dir fs.FileMode) fs.FileMode) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	mode := modeOf(info.Mode())
	if mode>>3&0o6 != mode&0o6 { // the group may do something else than all others
		if err := giveGroup(f, info); err != nil {
			return err
		}
	}
	return f.Chmod(mode)
}

func readers(dir fs.FileMode) fs.FileMode { return 0o600 | dir&0o044 }

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
