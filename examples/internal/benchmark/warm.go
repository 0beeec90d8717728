//go:build linux

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// warmTimes is how many times the image's size is touched before a pull: the
// peers write an image up to twice, docker in part one after the other.
const warmTimes = 3

// warm touches as much free memory as a pull will use. In a virtual machine the
// host gives a page only when it is first touched, and may take it back when it
// was free for some seconds; that costs four times what writing to the page
// does, and would be counted for the program that comes first.
func warm(bytes int64) error {
	touched, err := unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("touch %d bytes of memory: %w", bytes, err)
	}
	return unix.Munmap(touched)
}
