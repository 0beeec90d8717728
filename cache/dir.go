package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A Dir is a directory of tarballs that any number of processes, on any number
// of machines, may read and write at the same time.
type Dir struct {
	path    string
	engine  *Engine
	quota   int64
	grace   time.Duration
	mode    fs.FileMode
	group   int  // -1: as it is
	network bool // other hosts may write to it
	log     *slog.Logger
	flights flights

	now  func() time.Time // tests replace these
	wait func(ctx context.Context, d time.Duration) error
	beat time.Duration
}

// DirOptions of [OpenDir]. The zero value of each field works.
type DirOptions struct {
	// Engine fills the tarballs. Default: one of its own, with the defaults.
	Engine *Engine
	// Quota is how many bytes of the disk all files in the directory may take
	// together. What files share counts for each. Default: no limit but the disk.
	Quota int64
	// Grace is how long a version that was replaced stays, under a name with a
	// leading dot, for readers on other hosts that still have it open; less than
	// 0 is not at all. Default: 1 h on a network file system, not at all
	// elsewhere, where an open file stays whole by itself.
	Grace time.Duration
	// Mode is the mode of tarballs, such as 0644. Default: 0666 less the umask.
	Mode fs.FileMode
	// Group is the group of tarballs, by name or number; this process must be
	// allowed to give it. Default: as the file system has it.
	Group string
	// DirMode, when not 0, lets OpenDir create the directory, with this mode.
	// Default: it must exist.
	DirMode fs.FileMode
	// Logger is told of damage that was found, and of others that are waited
	// for. Default: silent.
	Logger *slog.Logger
}

// DefaultGrace is the default of [DirOptions.Grace] on network file systems.
const DefaultGrace = time.Hour

// OpenDir returns the directory of tarballs at path; nil options are the
// defaults. Unless they say otherwise it must exist already: a share that is not
// mounted must not turn into gigabytes on the local disk.
//
// Who may share it: any number of writers and readers, of all users that may write
// to it or read it, on one machine or many, on any file system on which rename replaces a file atomically: every local
// one, and NFS, SMB or a cluster's among the clients of one server.
//
// What is promised to readers: a name without a leading dot is a complete,
// verified tarball, always. Who has it open reads it to its end: on the same
// machine for as long as it likes, on others for [DirOptions.Grace] after it was
// replaced, and with [Tarball.ReadRange] beyond that.
//
// What is promised to writers: those of different tarballs never wait for each
// other. Of one tarball, one works and the others wait for it; an owner that has
// died is not waited for on its own machine, and for 90 s on others. That needs
// flock to work, or, between machines, that each sees what the other writes within
// that time. Where neither is so, two do the same work, each in a file of its
// own, and the last to finish stays, but for one of an older build run; nothing
// is lost or mixed. No promise depends on clocks that agree.
func OpenDir(path string, o *DirOptions) (*Dir, error) {
	if o == nil {
		o = &DirOptions{}
	}
	if o.DirMode != 0 {
		if err := makeDir(path, o.DirMode); err != nil {
			return nil, fmt.Errorf("cache directory: %w", err)
		}
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("cache directory: %w: create it, or mount the file system that holds it", err)
	case err != nil:
		return nil, fmt.Errorf("cache directory: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("cache directory: %s is not a directory", path)
	}
	d := &Dir{
		path: path, engine: o.Engine, quota: o.Quota, grace: o.Grace, mode: o.Mode, log: o.Logger,
		now: time.Now, wait: sleep, beat: beatEvery,
	}
	if d.group, err = groupID(o.Group); err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	if d.network = isNetworkAt(path); d.network && d.grace == 0 {
		d.grace = DefaultGrace
	}
	if d.engine == nil {
		d.engine = NewEngine(nil)
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
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
