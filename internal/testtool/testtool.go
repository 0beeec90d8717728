// Package testtool finds the external programs that some tests need.
package testtool

import (
	"os"
	"os/exec"
	"testing"
)

// Need returns the path of the program called name. Where it is missing the
// test is skipped and says so, or fails when CI=true: there everything must be
// installed, and a silent skip would hide that nothing was tested.
func Need(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "the program %s is not installed", name)
	}
	return path
}

// NeedRoot is [Need] for the permission to mount file systems and to start a
// container engine.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "this test needs root")
	}
}

// Missing skips the test, or fails it when CI=true.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI=true: "+format, args...)
	}
	t.Skipf(format, args...)
}
