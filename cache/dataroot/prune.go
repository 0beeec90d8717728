package dataroot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dockercache/dockercache/cache"
)

// Prune removes templates beyond limits, the least recently used first, as [cache.Dir.Prune]
// does tarballs, and sweeps. The templates of one base name are a group, of which the newest
// stays. One that is being cloned stays, and so does one of which this process sees a clone
// mounted: another goes in its place.
//
// Templates count together with the tarballs beside them where the Dir is
// [cache.PruneOptions.Others].
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
	entries, err := d.Entries()
	if err != nil {
		return r, err
	}
	return r, cache.PruneEntries(ctx, entries, o, r, time.Now(), func(e *cache.Entry) (bool, error) { return d.RemoveEntry(e, o.DryRun) })
}

// Entries returns the templates as [cache.Prunable] wants them: without an Info.
func (d *Dir) Entries() ([]cache.Entry, error) {
	all, err := d.List()
	if err != nil {
		return nil, err
	}
	var entries []cache.Entry
	for _, t := range all {
		e := cache.Entry{Name: t.Name, Allocated: t.Allocated, LastUsed: t.LastUsed, Err: t.Err}
		if t.Record != nil {
			e.Size, e.Written, e.Group = t.Record.Size, t.Record.Made, t.Base()+suffix // no tarball's
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// RemoveEntry removes a template as [Dir.Prune] does, and reports whether it stays since it is in
// use.
func (d *Dir) RemoveEntry(e *cache.Entry, dryRun bool) (stays bool, err error) {
	t, err := d.Get(e.Name)
	if err == nil && (t.LastUsed.After(e.LastUsed) || isCloned(t.Record)) {
		return true, nil
	}
	if err == nil {
		err = d.remove(e.Name, dryRun)
	}
	switch {
	case errors.Is(err, ErrInUse):
		return true, nil
	case errors.Is(err, ErrNoTemplate): // another prune has removed it
		return false, nil
	}
	return false, err
}

// isCloned reports whether a clone that this process sees is of a template.
func isCloned(r *Record) bool {
	all, _ := Clones() // without mounts there are none
	return slices.ContainsFunc(all, func(c Clone) bool { return c.Template.Record != nil && c.Template.Record.isSame(r) })
}
