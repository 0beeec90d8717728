package cache

import (
	"os"

	"golang.org/x/sys/unix"
)

// willNeed asks the kernel to read a part of a file, and does not wait for it.
func willNeed(f *os.File, offset, n int64) {
	_ = unix.Fadvise(int(f.Fd()), offset, n, unix.FADV_WILLNEED)
}

// startWriting lets the kernel begin to write a part of a file to the disk, which
// it would put off until there is much of it. It tells of no error: the fsync at the
// end does.
func startWriting(f *os.File, offset, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, n, unix.SYNC_FILE_RANGE_WRITE)
}
