package measure_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/advise/measure"
	"github.com/dockercache/dockercache/internal/testtool"
	"github.com/dockercache/dockercache/internal/throttled"
)

// The kernel limits the device: no sample can be faster, unless it was read from memory, or not
// flushed. How much slower one may be is up to the machine.
func TestDirectoryOfThrottledDevice(t *testing.T) {
	testtool.NeedMounts(t)
	testtool.Need(t, "mkfs.xfs")
	disk, err := throttled.Mount(filepath.Join(t.TempDir(), "image"), t.TempDir(), 1<<30)
	if errors.Is(err, throttled.ErrUnsupported) {
		t.Skip(err)
	}
	require.NoError(t, err)
	defer func() { assert.NoError(t, disk.Close()) }()
	const limit = 20_000_000
	require.NoError(t, disk.SetRate(limit))
	s, samples, err := measure.Directory(t.Context(), disk.Dir, &measure.DirectoryOptions{Limit: measure.Limit{Time: 2 * time.Second, Bytes: 256 << 20}})
	require.NoError(t, err)
	t.Logf("%+v", s)
	for _, sample := range samples {
		t.Logf("%+v", sample)
	}
	for what, rate := range map[string]float64{"write": s.Write, "one": s.ReadOne, "many": s.ReadMany} {
		assert.InDelta(t, limit, rate, limit/4, what)
	}
	assert.True(t, s.Reflink)
	assertEmpty(t, disk.Dir)
}
