package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// readAndWrite copies n bytes from one file into another by way of memory. An
// error of dst is a [writeError].
func readAndWrite(ctx context.Context, dst *os.File, to int64, src *os.File, from, n int64) error {
	buf := make([]byte, min(n, readBuffer))
	for n > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p := buf[:min(n, int64(len(buf)))]
		if n, err := src.ReadAt(p, from); n < len(p) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF // src is shorter than it was
			}
			return fmt.Errorf("read %s: %w", src.Name(), err)
		}
		if _, err := dst.WriteAt(p, to); err != nil {
			return &writeError{err}
		}
		from, to, n = from+int64(len(p)), to+int64(len(p)), n-int64(len(p))
	}
	return nil
}

// isWrite tells whether an error is that of the file that is written.
func isWrite(err error) bool {
	var w *writeError
	return errors.As(err, &w)
}
