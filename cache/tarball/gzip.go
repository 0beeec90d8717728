package tarball

import (
	"compress/gzip"
	"errors"
	"io"
	"sync"
)

// gzipReaderAt reads a compressed file anywhere, by decompressing it from where it was read
// last, or from its beginning.
type gzipReaderAt struct {
	file *io.SectionReader

	mu sync.Mutex
	z  *gzip.Reader // nil: at no place
	at int64
}

func (g *gzipReaderAt) ReadAt(p []byte, off int64) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.seek(off); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(g.z, p)
	if g.at += int64(n); err != nil {
		g.z = nil
	}
	if err == io.ErrUnexpectedEOF && n > 0 {
		// The file's end, or that of what is left of it: reading on shows which.
		return n, io.EOF
	}
	return n, err
}

// seek makes the decompressor stand at an offset.
func (g *gzipReaderAt) seek(off int64) (err error) {
	if g.z == nil || off < g.at {
		if _, err := g.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		g.at = 0
		if g.z, err = gzip.NewReader(g.file); err != nil {
			g.z = nil
			return err
		}
	}
	n, err := io.CopyN(io.Discard, g.z, off-g.at)
	if g.at += n; err != nil {
		g.z = nil
	}
	return err
}

// sequential reads an [io.ReaderAt] from its beginning to its end.
type sequential struct {
	r  io.ReaderAt
	at int64
}

func (s *sequential) Read(p []byte) (int, error) {
	n, err := s.r.ReadAt(p, s.at)
	s.at += int64(n)
	if n > 0 {
		err = nil // it comes again
	}
	return n, err
}

// Seek implements [io.Seeker], forward from where it is.
func (s *sequential) Seek(offset int64, whence int) (int64, error) {
	if offset < 0 || whence != io.SeekCurrent {
		return 0, errors.ErrUnsupported
	}
	s.at += offset
	return s.at, nil
}
