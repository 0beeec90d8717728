package sys

import (
	"io"
	"os"
)

// Parts gives parts of a file to read by a descriptor of its own, which has an offset of its
// own: sendfile reads from there. The zero value is ready, and not safe for concurrent use.
type Parts struct {
	own  *os.File          // nil before the first part
	part *io.LimitedReader // the last one; nil: none
	size int64             // what that had
}

// Next returns a reader of the n bytes of a file from offset at on; nil if the file cannot
// be opened again. All parts must be of one file. A nil file has none.
func (p *Parts) Next(f *os.File, at, n int64) *io.LimitedReader {
	if f == nil {
		return nil
	}
	if p.own == nil {
		p.own = OpenAgain(f)
	}
	if p.own == nil {
		return nil
	}
	if _, err := p.own.Seek(at, io.SeekStart); err != nil {
		return nil
	}
	p.part, p.size = &io.LimitedReader{R: p.own, N: n}, n
	return p.part
}

// Done ends the last part, and returns how many bytes were read of it.
func (p *Parts) Done() int64 {
	if p.part == nil {
		return 0
	}
	n := p.size - p.part.N
	p.part = nil
	return n
}

// Close closes the descriptor.
func (p *Parts) Close() {
	if p.own != nil {
		_ = p.own.Close()
	}
}

// OpenAgain opens a file once more, to read it; nil if it is no longer where it was opened. A
// duplicate of the descriptor would share its offset and its locks.
func OpenAgain(f *os.File) *os.File {
	again, err := OpenToRead(f.Name(), NoFollow)
	if err != nil {
		return nil
	}
	want, err := f.Stat()
	if have, statErr := again.Stat(); err != nil || statErr != nil || !os.SameFile(want, have) {
		_ = again.Close()
		return nil
	}
	return again
}
