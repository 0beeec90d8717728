//go:build !linux

package cache

import "os"

// isOpen sees nobody where it is not known how.
func isOpen(*os.File) bool { return false }
