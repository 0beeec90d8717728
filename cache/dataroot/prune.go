package dataroot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dockercache/dockercache/cache"
)

// Prune removes templates beyond limits, the least recently used first, as [cache.Dir.Prune]
// does tarballs, and sweeps. The templates of one base name are a group, of which the newest
// stays. One that is being cloned stays, and another goes in its place; clones go on.
func (d *Dir) Prune(ctx context.Context, o *cache.PruneOptions) (*cache.PruneResult, error) {
	if o == nil {
		o = &cache.PruneOptions{}
	}
	r := &cache.PruneResult{}
	if err := o.Check(); err != nil {
		return r, fmt.Errorf("dataroot: %w", err)
	}
	if !o.DryRun {
		d.Sweep()
	}
	all, err := d.List()
	if err != nil {
		return r, err
	}
	var entries []cache.Entry
	for _, t := range all {
		e := cache.Entry{Name: t.Name, Allocated: t.Allocated, LastUsed: t.LastUsed, Err: t.Err}
		if t.Record != nil {
			e.Size, e.Written, e.Group = t.Record.Size, t.Record.Made, t.Base()
		}
		entries = append(entries, e)
	}
	return r, cache.PruneEntries(ctx, entries, o, r, time.Now(), func(e *cache.Entry) (stays bool, err error) {
		if o.DryRun {
			return false, nil
		}
		err = d.Remove(e.Name)
		switch {
		case errors.Is(err, ErrInUse):
			return true, nil
		case errors.Is(err, ErrNoTemplate): // another prune has removed it
			return false, nil
		}
		return false, err
	})
}
