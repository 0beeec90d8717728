package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/dockercache/dockercache/cache/internal/sys"
)

// DefaultMaxBytes is the default of [Options.MaxBytes]: some six thousand records.
const DefaultMaxBytes = 4 << 20

// Options of [Open]. The zero value of each field works.
type Options struct {
	// MaxBytes is how large a file may be before it becomes the older one. Default:
	// [DefaultMaxBytes]. It should be the same for all, and is 16 KiB at least.
	MaxBytes int64

	now   func() time.Time
	sleep func(context.Context, time.Duration) // between looks at a lock that another has
}

// A Log appends to this user's file in a directory. It is safe for concurrent use, and for
// several processes and hosts.
type Log struct {
	dir     string
	options Options
}

// Open returns the log of a directory, which need not be there until something is appended.
func Open(dir string, o *Options) *Log {
	l := &Log{dir: dir}
	if o != nil {
		l.options = *o
	}
	if l.options.MaxBytes <= 0 {
		l.options.MaxBytes = DefaultMaxBytes
	}
	l.options.MaxBytes = max(l.options.MaxBytes, maxLine)
	if l.options.now == nil {
		l.options.now = time.Now
	}
	if l.options.sleep == nil {
		l.options.sleep = func(ctx context.Context, d time.Duration) {
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
		}
	}
	return l
}

// fileForm is the form of the names of all files.
var fileForm = regexp.MustCompile(`^\.history\.[0-9]{1,10}(\.1)?\.jsonl$`)

// path is where this user's file is, or the one before it.
func (l *Log) path(before string) string {
	// Where there are no user numbers it is -1.
	return filepath.Join(l.dir, fmt.Sprintf(".history.%d%s.jsonl", max(os.Geteuid(), 0), before))
}

const (
	// A lock that another has is looked at so often, so long. The work under it is that of
	// some system calls.
	lockLooks = 50
	lockEvery = time.Millisecond
	// maxReopens is how often the file may be replaced while it is being opened.
	maxReopens = 100
)

// Append appends a record. It takes some microseconds, and no more than 50 ms for other writers
// beside what the file system needs; after the end of ctx it does not wait for them. The error
// is why the record is not there, or not whole: it must not be that of the work. It wraps
// [fs.ErrPermission] or [syscall.EROFS] where this user may not write.
func (l *Log) Append(ctx context.Context, r Record) error {
	line, err := r.line(l.options.now())
	if err == nil {
		err = l.append(ctx, line)
	}
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

func (l *Log) append(ctx context.Context, line []byte) error {
	for range maxReopens {
		f, err := l.open()
		if errors.Is(err, fs.ErrExist) {
			continue // another process has created it
		}
		if err != nil {
			return err
		}
		done, err := l.appendTo(ctx, f, line)
		if closeErr := f.Close(); err == nil && done {
			err = closeErr
		}
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("%s is replaced all the time", l.path(""))
}

// open opens this user's file for appending. It may be anything that others have put there, and
// is not created by the same call that opens what is there: where links are protected
// (fs.protected_regular) that fails in directories with the sticky bit. It need not belong
// to this user: there are file servers that give all files to one.
func (l *Log) open() (*os.File, error) {
	const flags = os.O_RDWR | os.O_APPEND | sys.NoFollow | sys.NonBlock
	path := l.path("")
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			_ = sys.ShareWithReaders(f, l.dir)
		}
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = sys.IsAlone(info)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// appendTo appends a line, unless the file is not this user's any more, or becomes the one
// before: then nothing is done.
func (l *Log) appendTo(ctx context.Context, f *os.File, line []byte) (done bool, err error) {
	held, _ := sys.TryLock(f)
	for i := 0; held && i < lockLooks && ctx.Err() == nil; i++ {
		l.options.sleep(ctx, lockEvery)
		held, _ = sys.TryLock(f)
	}
	// Where locks do not work two may do what follows at the same time: then the file before is
	// a short one.
	if !held && !sys.IsAt(f, f.Name()) {
		return false, nil
	}
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	size := info.Size()
	switch {
	case size == 0 || size+int64(len(line)) <= l.options.MaxBytes:
	case !held:
		err := os.Rename(f.Name(), l.path(".1"))
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if size+int64(len(line)) > 2*l.options.MaxBytes {
			return false, err
		}
	case size+int64(len(line)) > 2*l.options.MaxBytes:
		return false, fmt.Errorf("%s is %d bytes, and locked", f.Name(), size)
	}
	if size > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, size-1); err != nil || last[0] != '\n' { // the disk was full
			line = append([]byte{'\n'}, line...)
		}
	}
	_, err = f.Write(line)
	return true, err
}
