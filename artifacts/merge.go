package artifacts

import (
	"archive/zip"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
)

// MergeOptions are options of [Merge]. The zero value of each field works.
type MergeOptions struct {
	// LastWins takes the later of two files that have the same path and
	// different content. Default: that is an error.
	LastWins bool
	// Limits bound what is merged: its Entries and TotalBytes.
	Limits Limits
}

// A MergedDir is the files of several archives as one directory: an [fs.FS] in
// memory, safe for concurrent use. Make it by [Merge].
type MergedDir struct {
	fs.FS
	// Files are all files, sorted by path. Directories without a file are left
	// out.
	Files []MergedFile
}

// A MergedFile is one file of a [MergedDir].
type MergedFile struct {
	Path string
	// From is the artifact that the file is from; of several with the same
	// content the first.
	From Artifact
	// Overridden are the artifacts whose file of the same path was different and
	// lost, which happens only with [MergeOptions.LastWins].
	Overridden []Artifact
}

// Merge makes one directory of several archives, in the order of their names and
// then their IDs, not of the argument. Nil archives are ignored.
//
// The same path may be in several of them with the same content. With different
// content it is an error of kind [ErrConflict] that names both, unless the last is
// to win. Names that are the same only without regard to case or composition, and
// a file where another archive has a directory, are always of kind [ErrArchive].
// Too many or too large files are of kind [ErrLimit].
func Merge(archives []*Archive, options *MergeOptions) (*MergedDir, error) {
	var o MergeOptions
	if options != nil {
		o = *options
	}
	limits := o.Limits.withDefaults()
	archives = slices.DeleteFunc(slices.Clone(archives), func(a *Archive) bool { return a == nil })
	slices.SortStableFunc(archives, func(a, b *Archive) int { return byNameAndID(a.Artifact, b.Artifact) })

	seen := names{}
	files := map[string]*MergedFile{}
	contents := map[string][]byte{}
	var paths []string
	var total int64
	for i, a := range archives {
		fail := func(kind error, format string, args ...any) (*MergedDir, error) {
			return nil, &Error{Op: "merge artifact", Source: fmt.Sprintf("%.200q", a.Artifact.Name), Kind: kind, Err: fmt.Errorf(format, args...)}
		}
		for _, p := range a.files {
			content, err := fs.ReadFile(a, p)
			if err != nil {
				return fail(ErrArchive, "%w", err)
			}
			if total += int64(len(content)); total > limits.TotalBytes {
				return fail(ErrLimit, "%.200q: the files of all artifacts have more than %d bytes together", p, limits.TotalBytes)
			}
			switch other, again, err := seen.add(p, false, i); {
			case err != nil && !again:
				return fail(ErrArchive, "%w; one of them is from artifact %.200q", err, archives[other.owner].Artifact.Name)
			case !again:
				if paths = append(paths, p); len(paths) > limits.Entries {
					return fail(ErrLimit, "more than %d files in all artifacts together", limits.Entries)
				}
				files[p] = &MergedFile{Path: p, From: a.Artifact}
			case bytes.Equal(contents[p], content):
				continue
			case !o.LastWins:
				return fail(ErrConflict, "%.200q is different in artifact %.200q", p, files[p].From.Name)
			default:
				f := files[p]
				f.Overridden, f.From = append(f.Overridden, f.From), a.Artifact
			}
			contents[p] = content
		}
	}
	return newMerged(paths, files, contents)
}

func newMerged(paths []string, files map[string]*MergedFile, contents map[string][]byte) (*MergedDir, error) {
	slices.Sort(paths)
	m := &MergedDir{}
	for _, p := range paths {
		m.Files = append(m.Files, *files[p])
	}
	raw, err := zipAll(paths, contents)
	if err != nil {
		return nil, err
	}
	if m.FS, err = zip.NewReader(bytes.NewReader(raw), int64(len(raw))); err != nil {
		return nil, err
	}
	return m, nil
}

// WriteDir writes the files into a directory of the file system, which is created
// if it does not exist. Files of the same path are replaced, others are left as
// they are; the mode is 0666 before the umask.
//
// Nothing outside the directory is touched, whatever symbolic links are in it: one
// that leads outside is an error, and so is a directory in the place of a file,
// both before anything is written. Each file is written under a temporary name and
// renamed, so that a path always has either its former file or the whole new one.
// When writing fails in the middle, some files are new and others are not.
func (m *MergedDir) WriteDir(dir string) error {
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
