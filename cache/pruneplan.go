package cache

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dockercache/dockercache/cache/internal/sys"
)

// A PruneReason says which limit a tarball is beyond. Programs print its text.
type PruneReason string

// The limits of [PruneOptions].
const (
	PruneCount PruneReason = "count"
	PruneAge   PruneReason = "age"
	PruneBytes PruneReason = "bytes"
	// PruneForeign: it is not of this cache, see [PruneOptions.Foreign].
	PruneForeign PruneReason = "foreign"
)

// A KeepReason says why a tarball that is beyond a limit stays. Programs print its text.
type KeepReason string

const (
	// KeepNewest: it is the newest of its group.
	KeepNewest KeepReason = "newest"
	// KeepInUse: it is being read or written, or was while prune was at work.
	KeepInUse KeepReason = "in-use"
)

// A PruneAction is a tarball that is beyond a limit.
type PruneAction struct {
	// Entry is what [Dir.List] has of it.
	Entry Entry
	// Why is the first limit that it is beyond, in the order foreign, age, count, bytes.
	Why PruneReason
	// Kept says why it stays all the same; "" if it is gone.
	Kept KeepReason
}

// Check returns an error for limits that cannot be meant.
func (o *PruneOptions) Check() error {
	switch {
	case o.Count < 0 || o.MaxAge < 0 || o.MaxBytes < 0 || o.LowWater < 0 || o.LeftoverAge < 0:
		return errors.New("prune: a limit is negative")
	case o.LowWater > o.MaxBytes:
		return fmt.Errorf("prune: a low water of %d bytes is more than the limit of %d", o.LowWater, o.MaxBytes)
	}
	return nil
}

// PlanPrune decides which tarballs are beyond the limits, as [Dir.Prune] does, in the order in which
// they go: the least recently used first. It reads nothing but its arguments. inUse are
// names that were found to be in use: others go in their place, so a name more in
// it never takes another out of the plan.
func PlanPrune(entries []Entry, o *PruneOptions, inUse map[string]bool, now time.Time) []PruneAction {
	var order []Entry
	left, bytes := 0, int64(0)
	for _, e := range entries {
		order = append(order, e)
		left++
		bytes += e.Allocated
	}
	slices.SortFunc(order, func(a, b Entry) int {
		return cmp.Or(a.LastUsed.Compare(b.LastUsed), strings.Compare(a.Name, b.Name))
	})
	newest := map[string]bool{}
	if !o.RemoveNewest {
		newest = newestOfGroups(order)
	}
	var plan []PruneAction
	decided := map[string]bool{}
	// round goes through the tarballs while a limit says so.
	round := func(why PruneReason, beyond func(e Entry) bool) {
		for _, e := range order {
			if decided[e.Name] || !beyond(e) {
				continue
			}
			decided[e.Name] = true
			p := PruneAction{Entry: e, Why: why}
			switch {
			case newest[e.Name]:
				p.Kept = KeepNewest
			case inUse[e.Name]:
				p.Kept = KeepInUse
			default:
				left--
				bytes -= e.Allocated
			}
			plan = append(plan, p)
		}
	}
	if o.MaxAge > 0 {
		round(PruneAge, func(e Entry) bool { return sys.Age(e.LastUsed, now) > o.MaxAge })
	}
	if o.Count > 0 {
		round(PruneCount, func(Entry) bool { return left > o.Count })
	}
	if o.MaxBytes > 0 && bytes > o.MaxBytes {
		low := cmp.Or(o.LowWater, o.MaxBytes)
		round(PruneBytes, func(Entry) bool { return bytes > low })
	}
	return plan
}

// newestOfGroups returns which tarballs are the newest of their groups: of the
// newest build run. Where a run is not known the time of writing decides; then a
// group may have two that are newest, one by its run and one by its time.
func newestOfGroups(entries []Entry) map[string]bool {
	byRun, byTime := map[string]Entry{}, map[string]Entry{}
	known := map[string]bool{} // every run of the group is
	for _, e := range entries {
		group := e.Group
		last, ok := byTime[group]
		if !ok {
			known[group] = true
		}
		known[group] = known[group] && e.Run.ID != 0
		if !ok || cmp.Or(e.Written.Compare(last.Written), strings.Compare(e.Name, last.Name)) > 0 {
			byTime[group] = e
		}
		if last, ok := byRun[group]; e.Run.ID != 0 && (!ok || e.Run.NewerThan(last.Run) ||
			!last.Run.NewerThan(e.Run) && cmp.Or(e.Written.Compare(last.Written), strings.Compare(e.Name, last.Name)) > 0) {
			byRun[group] = e
		}
	}
	newest := map[string]bool{}
	for group, e := range byTime {
		if !known[group] {
			newest[e.Name] = true
		}
	}
	for _, e := range byRun {
		newest[e.Name] = true
	}
	return newest
}
