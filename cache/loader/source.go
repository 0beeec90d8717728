package loader

import (
	"errors"
	"io"
	"os"
	"sync"

	"github.com/dockercache/dockercache/cache"
)

// A source is the archive as an engine reads it. It counts, and keeps its own
// failure apart from the engine's: with the same bytes a second try is vain.
type source struct {
	r     io.Reader
	total int64
	tell  func(cache.Progress) // nil: nobody
	all   func()               // is called when all of it was read; nil: nobody is

	mu    sync.Mutex // net/http may still read when it has returned
	done  int64
	err   error
	ended bool
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended { // nobody is told any more
		return 0, os.ErrClosed
	}
	s.done += int64(n)
	if s.all != nil && s.done == s.total {
		s.all()
		s.all = nil
	}
	if err != nil && err != io.EOF && !errors.Is(err, os.ErrClosed) {
		s.err = &sourceError{err}
	}
	if s.tell != nil && n > 0 {
		s.tell(cache.Progress{Done: s.done, Total: s.total})
	}
	return n, err
}

// end ends the reading. It returns how many bytes were read, and the error that has
// ended it before, if any.
func (s *source) end() (done int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	return s.done, s.err
}

// sourceError is the tarball's.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "read the tarball: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }
