//go:build !unix

package sys

import (
	"errors"
	"os"
	"time"
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

func links(os.FileInfo) uint64 { return 1 }

func isMine(os.FileInfo) bool { return true }

func isRoots(os.FileInfo) bool { return false }

// IsPrivate is not known here.
func IsPrivate(info os.FileInfo) bool { return info.IsDir() }

func giveGroup(*os.File, os.FileInfo) error { return nil }

// SetTime is not known here.
func SetTime(*os.File, time.Time) error { return errors.ErrUnsupported }

// Unlink removes a file.
func Unlink(path string) error { return os.Remove(path) }
