// Package batch does something with many tarballs, some at a time, and reports the progress of all
// of it.
package batch

import (
	"context"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// Run calls do for each index below n, for parallel of them at a time, as many as there are
// processors for Go if that is less than 1. do calls report with the bytes that are done; progress,
// when not nil, is called at the beginning and after each report, by one goroutine at a time. When
// ctx ends no more are begun, and the error is that of [wait.Err].
func Run(ctx context.Context, n, parallel int, total int64, progress func(tarball.Progress), do func(i int, report func(n int64))) error {
	if parallel < 1 {
		parallel = runtime.GOMAXPROCS(0)
	}
	var mu sync.Mutex
	sum := tarball.Progress{Total: total}
	report := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		if sum.Done += n; progress != nil {
			progress(sum)
		}
	}
	report(0)
	var group errgroup.Group
	group.SetLimit(parallel)
	for i := range n {
		group.Go(func() error {
			if ctx.Err() == nil {
				do(i, report)
			}
			return nil
		})
	}
	_ = group.Wait() // no function returns an error
	return wait.Err(ctx)
}
