package cache

import "cmp"

// A Run is the build run that an image came from. The zero value is no known
// run.
type Run struct {
	// ID grows from run to run, as those of GitHub Actions do.
	ID int64 `json:"run,omitempty"`
	// Attempt counts from 1 how often the run was started.
	Attempt int64 `json:"attempt,omitempty"`
}

// newerThan tells whether r began after other; neither is newer when one of them
// is not known.
func (r Run) newerThan(other Run) bool {
	if r.ID == 0 || other.ID == 0 {
		return false
	}
	return cmp.Or(cmp.Compare(r.ID, other.ID), cmp.Compare(r.Attempt, other.Attempt)) > 0
}

// knownAfter tells whether r says more than other does: it is newer, or the only
// one that is known.
func (r Run) knownAfter(other Run) bool {
	return r.newerThan(other) || r.ID != 0 && other.ID == 0
}
