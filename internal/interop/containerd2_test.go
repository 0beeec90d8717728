package interop

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is tested of loads with Debian's containerd is true of containerd 2 as well: the main
// tests run once more, in a process that finds its programs first.
func TestContainerd2(t *testing.T) {
	programs(t, containerdPrograms)
	tests := []string{"TestLoad", "TestEnginesNoticeAMissingLayer", "TestEnginesNoticeAWrongLayer", "TestPinned", "TestRemove", "TestUnlistedTypes"}
	program, err := os.Executable()
	require.NoError(t, err)
	out, err := exec.Command(program, "-test.v", "-test.run", "^("+strings.Join(tests, "|")+")$/^(pull )?containerd$|^TestKeepInKubernetes$").CombinedOutput()
	require.NoError(t, err, string(out))
	for _, test := range tests {
		assert.Contains(t, string(out), "--- PASS: "+test+"/containerd ")
	}
	assert.Contains(t, string(out), "--- PASS: TestLoad/pull_containerd ")
	assert.Contains(t, string(out), "--- PASS: TestKeepInKubernetes ")
}
