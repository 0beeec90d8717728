package sys

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/fiemap.h and linux/fs.h; the number is that of most architectures. Where it
// is another one the call fails.
const (
	fsIocFiemap  = 0xC020660B
	extentLast   = 0x1
	extentShared = 0x2000
)

// fiemap is struct fiemap with room for some extents.
type fiemap struct {
	start, length        uint64
	flags, mapped, count uint32
	_                    uint32
	extents              [128]struct {
		logical, physical, length uint64
		_                         [2]uint64
		flags                     uint32
		_                         [3]uint32
	}
}

// Shared returns how many bytes of f share their space on the disk with another file; 0
// where the file system shares nothing, or does not report it.
func Shared(f *os.File) (total int64) {
	for start := uint64(0); ; {
		m := fiemap{start: start, length: ^uint64(0) - start}
		m.count = uint32(len(m.extents))
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocFiemap, uintptr(unsafe.Pointer(&m)))
		runtime.KeepAlive(f)
		if errno != 0 || m.mapped == 0 || m.mapped > m.count {
			return total
		}
		for _, e := range m.extents[:m.mapped] {
			if e.flags&extentShared != 0 {
				total += int64(e.length)
			}
			if next := e.logical + e.length; e.flags&extentLast != 0 || next <= start {
				return total
			} else {
				start = next
			}
		}
	}
}
