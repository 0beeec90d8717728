package measure_test

import (
	"errors"
	"os"
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
	requireLimited := func(rate float64, what string) {
		assert.Positive(t, rate, what)
		assert.LessOrEqual(t, rate, float64(limit)*1.25, what)
	}
	requireLimited(s.Write, "write")
	requireLimited(s.ReadOne, "one")
	requireLimited(s.ReadMany, "many")
	assert.True(t, s.Reflink)
	assertEmpty(t, disk.Dir)

	tarball := filepath.Join(disk.Dir, "a.tar")
	f, err := os.Create(tarball)
	require.NoError(t, err)
	_, err = f.Write(make([]byte, 40<<20))
	require.NoError(t, errors.Join(err, f.Sync(), f.Close())) // what is published is on the disk
	s, sample, err := measure.Tarball(t.Context(), tarball, measure.Limit{Time: time.Second, Bytes: 32 << 20})
	require.NoError(t, err)
	t.Logf("%+v", sample)
	requireLimited(s.ReadOne, "a tarball")
	assert.True(t, s.Reflink)
	require.NoError(t, os.Remove(tarball))
	assertEmpty(t, disk.Dir)
}
