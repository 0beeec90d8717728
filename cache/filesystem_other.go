//go:build !linux

package cache

import "os"

// reserve does nothing where there is no fallocate.
func reserve(*os.File, []interval) error { return nil }

// freeSpace is not known.
func freeSpace(*os.File) int64 { return -1 }

// allocated is the size where nothing better is known.
func allocated(info os.FileInfo) int64 { return info.Size() }

// isNetwork is always careful: a lock alone is no proof of a dead writer.
func isNetwork(*os.File) bool { return true }
