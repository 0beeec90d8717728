package cache

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// openTarball opens the tarball at path, with further flags, and holds a shared lock on
// it until it is closed: so prune sees that it is in use.
func openTarball(path string, flags int) (*tarball.Tarball, os.FileInfo, error) {
	f, info, err := openLocked(path, flags)
	if err != nil {
		return nil, nil, err
	}
	p := &pinned{path: path, open: openLocked, file: f}
	t, err := tarball.Read(p, info.Size(), path)
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	p.planned = t.Layout
	return t, info, nil
}

func openLocked(path string, flags int) (*os.File, os.FileInfo, error) {
	f, err := sys.OpenToRead(path, flags)
	if err != nil {
		return nil, nil, err
	}
	sys.LockShared(f)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w: not a regular file", path, tarball.ErrNotTarball)
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// maxReopens bounds how often a file may go stale under one read without a byte
// in between.
const maxReopens = 5

// pinned is the file of an open tarball. One descriptor reads it to its end. Where
// that fails all the same, as on another NFS client when the grace for a version
// that was replaced is over (ESTALE), the file that has its name now is
// read on from the same byte of the same layer, if it has that.
type pinned struct {
	path    string
	open    func(path string, flags int) (*os.File, os.FileInfo, error) // [openLocked]; tests replace it
	read    func(f *os.File, p []byte, at int64) (int, error)           // [os.File.ReadAt]; tests replace it
	planned *tarball.Layout                                             // of the tarball as it was opened; nil until that is known

	mu     sync.Mutex
	file   *os.File
	layout *tarball.Layout // of file, when it is another one than planned
	closed bool
}

// OSFile returns the open file, as long as it is the one that was opened: for the page
// cache, and for its size.
func (p *pinned) OSFile() *os.File {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.layout != nil {
		return nil
	}
	return p.file
}

// ReadAt implements [io.ReaderAt].
func (p *pinned) ReadAt(b []byte, off int64) (done int, err error) {
	for reopened := 0; ; {
		f, at, most, err := p.place(off+int64(done), len(b)-done)
		if err != nil {
			return done, err
		}
		n, err := p.readFile(f, b[done:done+most], at)
		if done += n; n > 0 {
			reopened = 0
		}
		switch {
		case done == len(b):
			return done, nil
		case err == nil: // the next segment is elsewhere
		case !errors.Is(err, syscall.ESTALE) && !errors.Is(err, os.ErrClosed), reopened == maxReopens:
			return done, err
		default:
			reopened++
			if err := p.reopen(f); err != nil && !errors.Is(err, syscall.ESTALE) {
				return done, err
			}
		}
	}
}

func (p *pinned) readFile(f *os.File, b []byte, at int64) (int, error) {
	if p.read != nil {
		return p.read(f, b, at)
	}
	return f.ReadAt(b, at)
}

// place returns where in which file a byte of the tarball is, and how many of the n
// bytes from there on are.
func (p *pinned) place(off int64, n int) (f *os.File, at int64, most int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, 0, 0, os.ErrClosed
	}
	if p.layout == nil {
		return p.file, off, n, nil
	}
	for _, s := range p.planned.Segments() {
		if off < s.Offset || off >= s.Offset+s.Length {
			continue
		}
		// What is between the layers is known, and is never read again.
		if there, ok := p.layout.Layer(s.Blob); ok && s.IsBlob() && there.Length == s.Length {
			return p.file, there.Offset + off - s.Offset, int(min(int64(n), s.Offset+s.Length-off)), nil
		}
		return nil, 0, 0, fmt.Errorf("%s: %w: it no longer has %s", p.path, ErrReplaced, what(s))
	}
	return nil, 0, 0, io.EOF
}

func what(s tarball.Segment) string {
	if s.IsBlob() {
		return "layer " + s.Blob.String()
	}
	return fmt.Sprintf("the bytes at %d", s.Offset)
}

// reopen opens the file that has the name now in place of a stale one.
func (p *pinned) reopen(stale *os.File) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.file != stale {
		return nil // another reader was quicker, or the next look says so
	}
	if p.planned == nil {
		return fmt.Errorf("%s: %w", p.path, syscall.ESTALE)
	}
	f, info, err := p.open(p.path, 0)
	if err != nil {
		return err
	}
	t, err := tarball.Read(f, info.Size(), p.path)
	if err != nil {
		_ = f.Close()
		return err
	}
	_ = p.file.Close()
	p.file, p.layout = f, t.Layout
	return nil
}

// Close implements [io.Closer].
func (p *pinned) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return os.ErrClosed
	}
	p.closed = true
	return p.file.Close()
}
