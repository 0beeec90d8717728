package sys

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// elsewhere is a line as the process with this number would write it on a file system
// whose locks show nothing.
func elsewhere(t *testing.T, pid int, start uint64) string {
	me, ok := thisProcess()
	require.True(t, ok)
	return fmt.Sprintf("%x %s %s %d %d %s", unix.FUSE_SUPER_MAGIC, me.boot, me.namespace, pid, start, me.host)
}

func TestIsDeadByItsProcess(t *testing.T) {
	f := create(t, nil)
	me, ok := thisProcess()
	require.True(t, ok)
	assert.False(t, IsDead(f, elsewhere(t, me.pid, me.start)), "this process")
	assert.True(t, IsDead(f, elsewhere(t, me.pid, me.start+1)), "one before it with the same number")
	assert.False(t, IsDead(f, elsewhere(t, 1, startOf(t, 1))), "another process")

	sleep := exec.Command("sleep", "1000")
	require.NoError(t, sleep.Start())
	line := elsewhere(t, sleep.Process.Pid, startOf(t, sleep.Process.Pid))
	assert.False(t, IsDead(f, line))
	require.NoError(t, sleep.Process.Signal(syscall.SIGSTOP))
	assert.False(t, IsDead(f, line), "it is suspended")
	require.NoError(t, sleep.Process.Kill())
	var info unix.Siginfo
	require.NoError(t, unix.Waitid(unix.P_PID, sleep.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil))
	assert.True(t, IsDead(f, line), "nobody has waited for it")
	_ = sleep.Wait()
	assert.True(t, IsDead(f, line))
}

func startOf(t *testing.T, pid int) uint64 {
	_, start, err := statOf(pid)
	require.NoError(t, err)
	return start
}

func TestIsDeadOfAnother(t *testing.T) {
	f := create(t, nil)
	dead := elsewhere(t, 1<<30, 5)
	require.True(t, IsDead(f, dead))
	for i, to := range map[int]string{1: "another-boot", 2: "pid:[1]", 5: "another-host"} {
		fields := strings.Fields(dead)
		fields[i] = to
		assert.False(t, IsDead(f, strings.Join(fields, " ")), to)
	}
	for _, line := range []string{"", "x", "ef53", dead[:len(dead)/2], "ef53 a b c d e"} {
		assert.False(t, IsDead(f, line), line)
	}
}

// Where this kernel's locks reach all who may write, they decide, also for a writer of
// another boot or container.
func TestIsDeadByItsLock(t *testing.T) {
	f := create(t, nil)
	if !slices.Contains(localMagics, magicOf(f)) {
		t.Skip("the temporary directory is not on a local file system")
	}
	line := fmt.Sprintf("%x another-boot pid:[1] 1 1 another-host", magicOf(f))
	assert.True(t, IsDead(f, line))
	other, err := os.OpenFile(f.Name(), os.O_RDWR, 0)
	require.NoError(t, err)
	defer other.Close()
	assert.False(t, IsDead(other, line), "f has the lock")
	line = fmt.Sprintf("%x another-boot pid:[1] 1 1 another-host", unix.FUSE_SUPER_MAGIC)
	assert.False(t, IsDead(f, line), "its writer locks it elsewhere")
}

func TestWriter(t *testing.T) {
	f := create(t, nil)
	line := Writer(f)
	require.NotContains(t, line, "\n")
	require.Regexp(t, fmt.Sprintf(`^%x \S+ pid:\S+ %d \d+ `, magicOf(f), os.Getpid()), line)
}
