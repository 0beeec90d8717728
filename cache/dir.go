package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// A Dir is a directory of tarballs that any number of processes, on any number
// of machines, may read and write at the same time.
type Dir struct {
	path    string
	engine  *Engine
	quota   int64
	log     *slog.Logger
	flights flights
}

// DirOptions of [OpenDir]. The zero value of each field works.
type DirOptions struct {
	// Engine fills the tarballs. Default: one of its own, with the defaults.
	Engine *Engine
	// Quota is how many bytes of the disk all files in the directory may take
	// together. What files share counts for each. Default: no limit but the disk.
	Quota int64
	// Logger is told of damage that was found, and of others that are waited
	// for. Default: silent.
	Logger *slog.Logger
}

// OpenDir returns the directory of tarballs at path; nil options are the
// defaults. It must exist already: a
// share that is not mounted must not turn into gigabytes on the local disk.
//
// Who may share it: any number of writers and readers on one machine or many,
// on any file system on which rename replaces a file atomically (every local
// one; NFS among the clients of one server). Writers of the same tarball do
// not wait for each other: both do the work, each in a file of its own, and
// the last to finish stays. A reader that has the old file open on the same
// machine reads it to its end; one on another NFS client may get ESTALE.
func OpenDir(path string, o *DirOptions) (*Dir, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("cache directory: %w: create it, or mount the file system that holds it", err)
	case err != nil:
		return nil, fmt.Errorf("cache directory: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("cache directory: %s is not a directory", path)
	}
	d := &Dir{path: path}
	if o != nil {
		d.engine, d.quota, d.log = o.Engine, o.Quota, o.Logger
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.engine == nil {
		d.engine = NewEngine(nil)
	}
	return d, nil
}

// Path returns where the directory is.
func (d *Dir) Path() string { return d.path }

// maxTarballName is the longest name of a tarball, in bytes. It leaves room in
// a file name (255) for what a temporary name adds.
const maxTarballName = 200

// tarballPath checks name and returns its path. The error wraps [ErrName].
func (d *Dir) tarballPath(name string) (string, error) {
	switch {
	case name == "":
		return "", fmt.Errorf("%w: it is empty", ErrName)
	case name[0] == '.':
		return "", fmt.Errorf("%w %q: a leading dot is kept for work in progress", ErrName, name)
	case strings.ContainsAny(name, "/\\\x00"):
		return "", fmt.Errorf("%w %q: it has a path separator", ErrName, name)
	case !strings.HasSuffix(name, ".tar"):
		return "", fmt.Errorf("%w %q: it must end in .tar", ErrName, name)
	case len(name) > maxTarballName:
		return "", fmt.Errorf("%w %q: %d bytes, more than %d", ErrName, name, len(name), maxTarballName)
	}
	return filepath.Join(d.path, name), nil
}

// Lookup returns the tarball called name, read as [ReadTarball] does, with its
// errors and [ErrName].
func (d *Dir) Lookup(name string) (*Tarball, error) {
	path, err := d.tarballPath(name)
	if err != nil {
		return nil, err
	}
	return ReadTarball(path)
}
