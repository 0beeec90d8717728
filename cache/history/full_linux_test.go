package history

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/internal/testtool"
)

// On a full disk the work goes on without a record, what is there stays, and when there is room
// again the next record is one.
func TestAppendOnAFullDisk(t *testing.T) {
	testtool.NeedMounts(t)
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	filler := filepath.Join(dir, "filler")
	require.NoError(t, os.WriteFile(filler, bytes.Repeat([]byte("x"), 40<<10), 0o600))
	l := Open(dir, nil)
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = l.Append(t.Context(), stock())
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorIs(t, l.Append(t.Context(), stock()), syscall.ENOSPC)
	written := n - 1
	records, skipped, err := read(dir, time.Time{}, noon)
	require.NoError(t, err)
	assert.Len(t, records, written)
	assert.LessOrEqual(t, skipped.Lines(), 1, "the line that did not fit")

	require.NoError(t, os.Remove(filler))
	require.NoError(t, l.Append(t.Context(), stock()))
	records, again, err := read(dir, time.Time{}, noon)
	require.NoError(t, err)
	assert.Len(t, records, written+1)
	assert.LessOrEqual(t, again.Lines(), 2)
}

func TestAppendWhereNothingMayBeWritten(t *testing.T) {
	testtool.NeedMounts(t)
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, "size=64k"))
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	assert.ErrorIs(t, Open(dir, nil).Append(t.Context(), stock()), syscall.EROFS)
}
