package cache

import (
	"context"
	"fmt"
	"io"
)

// read asks the source once for what a span lacks and writes what comes. It
// returns how many bytes that was, also when it fails. A nil error means that
// the span is complete, or that the layer was begun anew meanwhile.
func (f *fill) read(ctx context.Context, w *work) (got int64, err error) {
	f.mu.Lock()
	have, end, stream, over := w.span.pos, w.span.end, w.layer.stream, w.round != w.layer.round
	f.mu.Unlock()
	if over || have == end {
		return 0, nil
	}
	from := have
	if stream {
		from = 0
	}
	body, err := f.src.ReadRange(ctx, w.layer.digest, from, end-from)
	if err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	defer body.Close()
	if stream { // no ranges: what is there already comes again
		if _, err := io.CopyN(io.Discard, body, have); err != nil {
			return 0, fmt.Errorf("read again up to %d: %w", have, err)
		}
	}
	buf := f.engine.buffers.Get().(*[]byte)
	defer f.engine.buffers.Put(buf)
	for {
		n, readErr := readChunk(body, *buf)
		written, complete, err := f.write(w, (*buf)[:n])
		got += written
		switch at := have + got; {
		case err != nil:
			return got, err
		case complete && at < end: // the rest was split off, or the layer begun anew
			return got, nil
		case complete && int64(n) > written:
			return got, &tooLongError{w.layer.size}
		case complete && readErr == nil:
			return got, expectEnd(body, w.layer.size)
		case complete:
			return got, nil
		case readErr == io.EOF:
			return got, fmt.Errorf("%w: the source ends after %d of the %d bytes that the manifest declares", ErrBlobSize, at, w.layer.size)
		case readErr != nil:
			return got, fmt.Errorf("read at %d of %d bytes: %w", at, w.layer.size, readErr)
		}
	}
}

// readChunk fills buf as far as it can and returns the reader's own error:
// io.ReadFull would not tell an early end from a connection that broke.
func readChunk(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var got int
		got, err = r.Read(buf[n:])
		n += got
	}
	return n, err
}

// expectEnd reads the end of a body, which lets its connection be used again,
// and notices a source that gives more than it was asked for.
func expectEnd(body io.Reader, size int64) error {
	var one [1]byte
	if n, err := io.ReadFull(body, one[:]); n > 0 {
		return &tooLongError{size}
	} else if err != io.EOF {
		return nil // the bytes are there; only the connection is not
	}
	return nil
}

// tooLongError is permanent: it will be as long the next time.
type tooLongError struct{ size int64 }

func (e *tooLongError) Error() string {
	return fmt.Sprintf("%v: the source gives more than the %d bytes that the manifest declares", ErrBlobSize, e.size)
}
func (e *tooLongError) Unwrap() error   { return ErrBlobSize }
func (e *tooLongError) Temporary() bool { return false }

// write puts bytes at the span's position into the file, as many as the span
// still wants, and tells whether it wants no more.
func (f *fill) write(w *work, p []byte) (written int64, complete bool, err error) {
	l, s := w.layer, w.span
	f.mu.Lock()
	if w.round != l.round {
		f.mu.Unlock()
		return 0, true, nil
	}
	at := s.pos
	p = p[:min(int64(len(p)), s.end-at)]
	s.reserved = at + int64(len(p)) // from here on nobody splits these off
	l.writes++
	f.mu.Unlock()

	_, err = f.file.WriteAt(p, l.offset+at)

	f.mu.Lock()
	l.writes--
	f.downloaded += int64(len(p))
	var said interval
	switch over := w.round != l.round; {
	case over:
		complete = true
	case err != nil:
		s.reserved, err = at, &writeError{err}
	default:
		s.pos = s.reserved
		f.progress.Done += int64(len(p))
		complete = s.pos == s.end
		if complete || s.pos-s.said >= journalStep {
			said, s.said = interval{s.said, s.pos}, s.pos
		}
	}
	progress := f.progress
	f.cond.Broadcast()
	f.mu.Unlock()
	if err != nil {
		return 0, false, err
	}
	f.options.journal.add(l.digest, said.from, said.to)
	if f.options.Progress != nil && len(p) > 0 {
		f.options.Progress(progress)
	}
	return int64(len(p)), complete, nil
}

// writeError is the file's: no other source helps.
type writeError struct{ err error }

func (e *writeError) Error() string   { return "write: " + e.err.Error() }
func (e *writeError) Unwrap() error   { return e.err }
func (e *writeError) Temporary() bool { return false }
