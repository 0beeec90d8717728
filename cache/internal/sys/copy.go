package sys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/dockercache/dockercache/internal/wait"
)

// A WriteError is the error of a file that is written: no other source of the bytes
// helps.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return "write: " + e.Err.Error() }
func (e *WriteError) Unwrap() error { return e.Err }

// Temporary reports false: a repetition does not help.
func (e *WriteError) Temporary() bool { return false }

// IsWrite reports whether err wraps a [*WriteError].
func IsWrite(err error) bool {
	var w *WriteError
	return errors.As(err, &w)
}

// ReadAndWrite copies n bytes of src at from to dst at to, by way of memory. An
// error of dst is a [*WriteError].
func ReadAndWrite(ctx context.Context, dst io.WriterAt, to int64, src io.ReaderAt, from, n int64) error {
	buf := make([]byte, min(n, ReadBuffer))
	for n > 0 {
		if ctx.Err() != nil {
			return wait.Err(ctx)
		}
		p := buf[:min(n, int64(len(buf)))]
		if n, err := src.ReadAt(p, from); n < len(p) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF // src is shorter than it was
			}
			return fmt.Errorf("read %s: %w", nameOf(src), err)
		}
		if _, err := dst.WriteAt(p, to); err != nil {
			return &WriteError{err}
		}
		from, to, n = from+int64(len(p)), to+int64(len(p)), n-int64(len(p))
	}
	return nil
}

// CloneOrCopy makes the bytes [from, to) of dst those of src: whole blocks shared where
// that is possible, the rest copied.
func CloneOrCopy(ctx context.Context, dst, src *os.File, from, to int64) error {
	begin := (from + Align - 1) &^ (Align - 1)
	n := CloneRange(dst, begin, src, begin, to-begin)
	if n == 0 {
		_, err := CopyRange(ctx, dst, from, src, from, to-from)
		return err
	}
	if _, err := CopyRange(ctx, dst, from, src, from, begin-from); err != nil {
		return err
	}
	_, err := CopyRange(ctx, dst, begin+n, src, begin+n, to-begin-n)
	return err
}

func nameOf(r io.ReaderAt) string {
	if f := FileOf(r); f != nil {
		return f.Name()
	}
	return "the source"
}

// FileOf returns the file that r reads: r itself, or what its method OSFile returns;
// nil if there is none.
func FileOf(r io.ReaderAt) *os.File {
	switch f := r.(type) {
	case *os.File:
		return f
	case interface{ OSFile() *os.File }:
		return f.OSFile()
	}
	return nil
}
