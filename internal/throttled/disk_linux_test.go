package throttled_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/internal/testtool"
	"github.com/dockercache/dockercache/internal/throttled"
)

// limits are the lines of the root cgroup about a device.
func limits(t *testing.T, device string) (lines []string) {
	for _, name := range []string{"read", "write"} {
		content, err := os.ReadFile("/sys/fs/cgroup/blkio/blkio.throttle." + name + "_bps_device")
		require.NoError(t, err)
		for line := range strings.Lines(string(content)) {
			if rate, ok := strings.CutPrefix(line, device+" "); ok {
				lines = append(lines, name+" "+strings.TrimSpace(rate))
			}
		}
	}
	return lines
}

// sectors is how many the device of a directory has read, of 512 bytes.
func sectors(t *testing.T, device string) string {
	content, err := os.ReadFile("/sys/dev/block/" + device + "/stat")
	require.NoError(t, err)
	return strings.Fields(string(content))[2]
}

func TestDisk(t *testing.T) {
	testtool.NeedMounts(t)
	testtool.Need(t, "mkfs.xfs")
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	d, err := throttled.Mount(image, dir, 512<<20)
	if errors.Is(err, throttled.ErrUnsupported) {
		t.Skip(err) // in CI too: nothing that is installed changes it
	}
	require.NoError(t, err)
	closed := false
	t.Cleanup(func() {
		if !closed {
			assert.NoError(t, d.Close())
		}
	})
	devices, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	require.NoError(t, err)
	var device string
	for _, path := range devices {
		if backing, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(backing)) == image {
			number, err := os.ReadFile(filepath.Join(filepath.Dir(path), "../dev"))
			require.NoError(t, err)
			device = strings.TrimSpace(string(number))
		}
	}
	require.NotEmpty(t, device)

	assert.Empty(t, limits(t, device))
	require.NoError(t, d.SetRate(400_000_000))
	assert.Equal(t, []string{"read 400000000", "write 400000000"}, limits(t, device))
	require.NoError(t, d.SetRate(300_000_000))
	assert.Equal(t, []string{"read 300000000", "write 300000000"}, limits(t, device))

	path := filepath.Join(d.Dir, "file")
	require.NoError(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
	require.NoError(t, throttled.Forget(d.Dir))
	before := sectors(t, device)
	_, err = os.ReadFile(path)
	require.NoError(t, err)
	assert.NotEqual(t, before, sectors(t, device), "it is read from the device")
	file, err := os.Open(path)
	require.NoError(t, err)
	clone, err := os.Create(path + ".clone")
	require.NoError(t, err)
	assert.NoError(t, unix.IoctlFileClone(int(clone.Fd()), int(file.Fd())))
	require.NoError(t, errors.Join(file.Close(), clone.Close()))

	closed = true
	require.NoError(t, d.Close())
	assert.Empty(t, limits(t, device))
	assert.NoFileExists(t, image)
}
