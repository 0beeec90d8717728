package artifacts

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// WriteDir writes the files into a directory of the file system, which it
// creates if it is missing. Files of the same path are replaced, others are left
// as they are; the mode is 0666 before the umask.
//
// Nothing outside the directory is touched, whatever symbolic links are in it:
// one that leads outside is an error, and so is a directory where a file should
// go, both before anything is written. Each file is written under a temporary
// name and renamed, so a path is at every moment what it was before or the whole
// new file. When writing fails in the middle, some files are there and others
// are not.
func (m *Merged) WriteDir(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range m.Files {
		// Stat follows links, as opening a directory on the way does.
		info, err := root.Stat(path.Dir(f.Path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return fmt.Errorf("write into %s: %w", dir, err)
		case !info.IsDir():
			return fmt.Errorf("write into %s: %s is not a directory", dir, path.Dir(f.Path))
		}
		if info, err := root.Lstat(f.Path); err == nil && info.IsDir() {
			return fmt.Errorf("write into %s: %s is a directory", dir, f.Path)
		}
	}
	for _, f := range m.Files {
		content, err := fs.ReadFile(m, f.Path)
		if err == nil {
			err = writeFile(root, f.Path, content)
		}
		if err != nil {
			return fmt.Errorf("write into %s: %w", dir, err)
		}
	}
	return nil
}

func writeFile(root *os.Root, name string, content []byte) error {
	if err := root.MkdirAll(path.Dir(name), 0o777); err != nil {
		return err
	}
	temporary := path.Join(path.Dir(name), "."+rand.Text()+".tmp")
	f, err := root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync() // a full disk or quota may show only here, on NFS above all
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = root.Rename(temporary, name)
	}
	if err != nil {
		err = errors.Join(err, root.Remove(temporary))
	}
	return err
}
