package sys

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/internal/wait"
)

// copyStep is how many bytes the kernel is asked to copy at a time, so that a
// context that ends is noticed. On NFS 4.2 each is one request to the server.
const copyStep = 64 << 20

// CloneRange makes whole blocks of dst share the space of those of src, which
// costs no time and no space, and returns how many bytes that is: n, or the
// whole blocks in it, for only those can be cloned into the middle of a file; 0
// where the file system cannot.
func CloneRange(dst *os.File, to int64, src *os.File, from, n int64) int64 {
	n &^= Align - 1
	if n <= 0 || to%Align != 0 || from%Align != 0 {
		return 0
	}
	if unix.IoctlFileCloneRange(int(dst.Fd()), &unix.FileCloneRange{
		Src_fd: int64(src.Fd()), Src_offset: uint64(from), Src_length: uint64(n), Dest_offset: uint64(to),
	}) != nil {
		return 0
	}
	return n
}

// CopyRange makes the n bytes of dst at to those of src at from. The kernel
// copies, on NFS 4.2 the server does, and where neither can it is read and
// written. unread reports whether this process has read none of them.
func CopyRange(ctx context.Context, dst *os.File, to int64, src *os.File, from, n int64) (unread bool, err error) {
	for n > 0 {
		if ctx.Err() != nil {
			return false, wait.Err(ctx)
		}
		got, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, int(min(n, copyStep)), 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return false, &WriteError{&os.PathError{Op: "copy to", Path: dst.Name(), Err: err}}
		}
		if err != nil || got == 0 { // not here; or the end of src, which reading shows
			return false, ReadAndWrite(ctx, dst, to, src, from, n)
		}
		n -= int64(got) // from and to have moved on
	}
	return true, nil
}
