package dataroot

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/sys"
)

// One has the lock at a time, although each removes its file; none is left. That of a process that
// was killed is swept, one that is held is not.
func TestLock(t *testing.T) {
	path := t.TempDir()
	d, err := Open(path, nil)
	require.NoError(t, err)
	const name = "a.dataroot"
	file := filepath.Join(path, "."+name+lockSuffix)
	var holders atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for had := 0; had < 500; {
				release, err := d.tryLock(name)
				if !assert.NoError(t, err) {
					return
				}
				if release == nil {
					continue
				}
				had++
				assert.EqualValues(t, 1, holders.Add(1))
				runtime.Gosched()
				holders.Add(-1)
				release()
			}
		})
	}
	all.Wait()
	assert.NoFileExists(t, file)

	release, err := d.lock(context.Background(), name)
	require.NoError(t, err)
	old := time.Now().Add(-2 * sys.AbandonedAfter)
	require.NoError(t, os.Chtimes(file, old, old))
	d.Sweep()
	assert.FileExists(t, file)
	other, err := d.tryLock(name)
	require.NoError(t, err)
	assert.Nil(t, other)
	release()
	assert.NoFileExists(t, file)

	require.NoError(t, os.WriteFile(file, nil, 0o600))
	d.Sweep()
	assert.FileExists(t, file)
	require.NoError(t, os.Chtimes(file, old, old))
	d.Sweep()
	assert.NoFileExists(t, file)
}
