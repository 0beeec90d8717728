//go:build !linux

package sys

import (
	"context"
	"errors"
	"os"
)

// CloneRange clones nothing where it is not known how.
func CloneRange(*os.File, int64, *os.File, int64, int64) int64 { return 0 }

// CopyRange reads and writes where nothing better is known.
func CopyRange(ctx context.Context, dst *os.File, to int64, src *os.File, from, n int64) (unread bool, err error) {
	return false, ReadAndWrite(ctx, dst, to, src, from, n)
}

// Reserve does nothing where there is no fallocate.
func Reserve(*os.File, []Interval) error { return nil }

// FreeSpace is not known.
func FreeSpace(*os.File) int64 { return -1 }

// Allocated is the size where nothing better is known.
func Allocated(info os.FileInfo) int64 { return info.Size() }

// Changed is not known here.
func Changed(os.FileInfo) int64 { return 0 }

// ShowsChanges is not known.
func ShowsChanges(*os.File) bool { return false }

// Shared is not known.
func Shared(*os.File) int64 { return 0 }

// IsNetwork is always careful: a lock alone does not show that a writer is dead.
func IsNetwork(*os.File) bool { return true }

// StartWriting does nothing where it is not known how.
func StartWriting(*os.File, int64, int64) {}

// Drop is not known here.
func Drop(*os.File) error { return errors.ErrUnsupported }

// Writer is not known here.
func Writer(*os.File) string { return "" }

// IsDead is always careful: what it needs to know is not known here.
func IsDead(*os.File, string) bool { return false }

func willNeed(*os.File, int64, int64) {}

func isOpen(*os.File) bool { return false }
