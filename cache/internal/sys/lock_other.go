//go:build !unix

package sys

import (
	"errors"
	"os"
)

// There are no such flags here.
const (
	NoFollow = 0
	NonBlock = 0
)

const (
	lockShared = iota
	lockExclusive
)

func flock(*os.File, int) error { return errors.ErrUnsupported }

// Duplicate is not known here.
func Duplicate(*os.File, string) (*os.File, error) { return nil, errors.ErrUnsupported }

// IsReadOnly is not known here.
func IsReadOnly(*os.File) bool { return false }

// Inode is not known here.
func Inode(os.FileInfo) uint64 { return 0 }

// Unlink removes a file.
func Unlink(path string) error { return os.Remove(path) }
