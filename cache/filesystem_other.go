//go:build !linux

package cache

import "os"

// preallocate does nothing where there is no fallocate: f has its size already.
func preallocate(*os.File, int64) error { return nil }

// isNetwork is always careful: a lock alone is no proof of a dead writer.
func isNetwork(*os.File) bool { return true }
