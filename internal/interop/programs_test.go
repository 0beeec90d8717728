package interop

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dockercache/dockercache/internal/testtool"
)

// Variables that name directories of programs which .ci/run builds from their Go modules, since
// there are no packages of them: each is "skipped" where a module cannot be had.
const (
	buildkitPrograms   = "DOCKERCACHE_BUILDKIT"    // buildkitd and buildctl
	containerdPrograms = "DOCKERCACHE_CONTAINERD2" // containerd and ctr, of version 2
	crioPrograms       = "DOCKERCACHE_CRIO"        // crio
	crictlPrograms     = "DOCKERCACHE_CRICTL"      // crictl
)

// programs puts the directory that a variable names first on the PATH.
// Without it the test is skipped, or fails when CI=true.
func programs(t *testing.T, variable string) {
	t.Helper()
	testtool.NeedRoot(t)
	dir := os.Getenv(variable)
	switch dir {
	case "":
		testtool.Missing(t, "%s does not name a directory of programs: .ci/run builds them", variable)
	case "skipped":
		t.Skipf("%s: .ci/run could not build these programs", variable)
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
}
