//go:build !linux

package cache

import "os"

// willNeed does nothing where it is not known how.
func willNeed(*os.File, int64, int64) {}

// startWriting does nothing where it is not known how.
func startWriting(*os.File, int64, int64) {}
