package testtool

import (
	"testing"

	"golang.org/x/sys/unix"
)

// NeedMounts skips the test where no file system can be mounted, in CI too: root
// in a container without that right cannot be given it by installing anything.
func NeedMounts(t testing.TB) {
	t.Helper()
	NeedRoot(t)
	at := t.TempDir()
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
}
