package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dockercache/dockercache/cache/internal/fetch"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// A Dir is a directory of tarballs that any number of processes, on any number
// of machines, may read and write at the same time. It is made by [Open], and safe for
// concurrent use.
type Dir struct {
	path     string
	fetcher  *fetch.Fetcher
	quota    int64
	grace    time.Duration
	trustFor time.Duration // less than 0: nothing that was not hashed now
	mode     fs.FileMode
	group    int  // -1: as it is
	network  bool // other hosts may write to it
	log      *slog.Logger
	inflight inflight
	layers   layerIndex
	// quotaTurn is taken by who begins a partial file where there is a quota: those of one
	// process do not poll for the lock.
	quotaTurn chan struct{}

	now       func() time.Time // tests replace these
	sleep     func(ctx context.Context, d time.Duration) error
	heartbeat time.Duration
}

// Options of [Open]. The zero value of each field works.
type Options struct {
	// Connections is how many ranges are read from sources at a time at most, over all
	// tarballs that are written at the same time; fewer while a source refuses requests. Up to
	// a quarter more may be open while some of them are about to end, or are far slower than
	// the others.
	// Default: the number finds itself, from 16 on up to [MostConnections]: it grows while
	// more comes, and falls while as much comes with fewer.
	Connections int
	// MinRangeRate is how many bytes a second a connection must fetch, in the mean of a
	// minute: one that brings less is ended, and its range asked for again. Less than 0 is
	// no limit. Default: 1 KiB.
	MinRangeRate int64
	// Quota is how many bytes of the disk all files in the directory may take
	// together. What files share counts for each, and what is being written counts in
	// full from its beginning, by all processes that locks reach; small files beside the
	// tarballs are not foreseen. Default: no limit but the disk.
	Quota int64
	// Grace is how long a version that was replaced stays, under a name with a
	// leading dot, for readers on other hosts that still have it open; less than
	// 0 is not at all. Default: 1 h on a network file system, not at all
	// elsewhere, where an open file stays whole by itself.
	Grace time.Duration
	// TrustFor is for how long it counts that the bytes of a tarball were hashed: a layer
	// that is cloned, or copied without this process reading it, from a tarball that has
	// not changed since is not hashed again. See [Open] for what that means. Less than 0
	// hashes every layer of every tarball, and records nothing. Default: 7 days.
	TrustFor time.Duration
	// Mode is the mode of tarballs, such as 0644. Default: 0666 less the umask. With one by
	// which others than the owner may write to them they are hashed whenever a layer is taken
	// from them, see TrustFor.
	Mode fs.FileMode
	// Group is the group of tarballs, by name or number; this process must be
	// allowed to give it. Default: that of the file system.
	Group string
	// DirMode, when not 0, lets Open create the directory, with this mode.
	// Default: it must exist.
	DirMode fs.FileMode
	// Logger logs damage that was found, and writers that are waited for. Default:
	// silent.
	Logger *slog.Logger
}

// defaultMinRangeRate is the default of [Options.MinRangeRate].
const defaultMinRangeRate = 1 << 10

// MostConnections is how many ranges are read at a time at most where
// [Options.Connections] is not given.
const MostConnections = fetch.MostConnections

// DefaultGrace is the default of [Options.Grace] on network file systems.
const DefaultGrace = time.Hour

// Open returns the directory of tarballs at path; nil options are the
// defaults. Unless they say otherwise it must exist already: a share that is not
// mounted must not turn into gigabytes on the local disk.
//
// Who may share it: any number of writers and readers, of all users that may write
// to it or read it, on one machine or many, on any file system on which rename replaces a
// file atomically: every local one, and NFS, SMB or a cluster's among the clients of one
// server.
//
// What is promised to readers: a name without a leading dot is a complete,
// verified tarball, always. An open tarball can be read to its end, whatever happens to
// its name: on the same machine for as long as it is open, on others for
// [Options.Grace] after it was replaced, and beyond that as far as the file that has
// its name has the same layers.
//
// What verified means: that every byte in the tarball was hashed by its writer, after it was
// written; or that it was cloned, or copied inside the kernel or the file server, from a tarball
// of which all of this is so:
//
//   - This user or root has recorded that its bytes were hashed, each of them less than
//     [Options.TrustFor] ago. A layer passes the time on from tarball to tarball.
//   - Its file has been in the same state since: it has the same number, size and time of
//     change (st_ctime), before and after the layer was taken. Only the kernel or the file server
//     sets that time.
//   - It belongs to this user or root, and its mode lets no others write to it.
//   - It is on ext4, XFS, btrfs or NFS, which show every change that way, in units smaller
//     than 1 ms: ext4 with inodes of 128 bytes does not.
//
// Everything else is hashed, as is all of [PutOptions.Verify], [PutOptions.Rewrite] and
// [Dir.Repair]. What is neither hashed nor seen is what changed without the file system, such as
// a bit on a disk, and what another program of this user was writing into the file, in place,
// when the machine failed. Such damage goes with the layer into the tarballs that are made of
// it. It is found by package loader, which verifies what it loads, by [Dir.Verify], and when
// TrustFor is over.
//
// What is promised to writers: those of different tarballs never wait for each
// other. Of one tarball, one works and the others wait for it, while its work goes on. An
// owner that has died is not waited for on its own machine, and for 90 s on others. One that
// lives is waited for while its heartbeats show progress, and otherwise for 30 s, or 90 s on
// a network file system: whether it shows nothing at all, since it is suspended, or lives and
// next to nothing comes of its source, see [Dir.Put]. Work on files, such as copying, hashing
// and flushing, may take as long as it does, and so may the 60 s at most for which a source
// that refuses requests asks. Of several that wait for such an owner one does the
// work, and the others wait for that one in the same way; only where next to nothing comes to it
// either, all of them work. An owner that is not waited for any more may go on, and is seen as an
// owner by Prune and Remove. It ends when another has published what it is writing.
//
// That needs flock to work, or, between machines, that each sees what the other writes within
// 90 s. Where neither is so, two do the same work. Whenever two do, each writes a file of its
// own, and the last to finish wins, unless it is of an older build run or the same image is
// there by then; nothing is lost or mixed. No promise depends on clocks that agree. Owners of
// versions of this package that show no progress are waited for while they live.
//
// The errors are those of the file system, and of a group that is not known.
func Open(path string, o *Options) (*Dir, error) {
	if o == nil {
		o = &Options{}
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
		path: path, fetcher: fetch.New(o.Connections), quota: o.Quota, grace: o.Grace, trustFor: cmp.Or(o.TrustFor, defaultTrust), mode: o.Mode, log: o.Logger,
		now: time.Now, sleep: wait.Sleep, heartbeat: heartbeatEvery, quotaTurn: make(chan struct{}, 1),
	}
	if d.group, err = groupID(o.Group); err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	if d.network = sys.IsNetworkAt(path); d.network && d.grace == 0 {
		d.grace = DefaultGrace
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.fetcher.Log, d.fetcher.MinRangeRate = d.log, max(cmp.Or(o.MinRangeRate, defaultMinRangeRate), 0)
	return d, nil
}

// Path returns where the directory is.
func (d *Dir) Path() string {
	if d == nil {
		return ""
	}
	return d.path
}

// maxName is the longest name of a tarball, in bytes. It leaves room in
// a file name (255) for what a temporary name adds.
const maxName = 200

// check returns an error for a Dir that [Open] has not made.
func (d *Dir) check() error {
	if d == nil || d.fetcher == nil {
		return errors.New("cache: this Dir was not made by Open")
	}
	return nil
}

// CheckName reports whether a tarball can be called name, in a [Dir] and in a bucket: it
// returns an error that wraps [ErrInvalidName] if not.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: it is empty", ErrInvalidName)
	case strings.ContainsAny(name, "/\\\x00"):
		return fmt.Errorf("%w %q: it contains a path separator or a NUL byte", ErrInvalidName, name)
	case name[0] == '.':
		return fmt.Errorf("%w %q: a leading dot is kept for work in progress", ErrInvalidName, name)
	case !strings.HasSuffix(name, ".tar"):
		return fmt.Errorf("%w %q: it must end in .tar", ErrInvalidName, name)
	case len(name) > maxName:
		return fmt.Errorf("%w %q: %d bytes, more than %d", ErrInvalidName, name, len(name), maxName)
	}
	return nil
}

// tarballPath checks name and returns its path. The error wraps [ErrInvalidName].
func (d *Dir) tarballPath(name string) (string, error) {
	if err := d.check(); err != nil {
		return "", err
	}
	if err := CheckName(name); err != nil {
		return "", err
	}
	return filepath.Join(d.path, name), nil
}

// Get opens the tarball called name and reads its beginning, as [tarball.Read] does.
// Close must be called in the end. Until then the tarball is in use, which keeps
// [Dir.Prune] from removing it, and can be read to its end, see [Open].
//
// The errors are those of [tarball.Read]; [ErrInvalidName]; those of the file system,
// such as [fs.ErrNotExist].
func (d *Dir) Get(ctx context.Context, name string) (*tarball.Tarball, error) {
	if err := wait.Err(ctx); err != nil {
		return nil, err
	}
	path, err := d.tarballPath(name)
	if err != nil {
		return nil, err
	}
	t, _, err := openTarball(path, 0)
	return t, err
}

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
