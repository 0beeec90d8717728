// Package sys is what the other packages need of the operating system: copying
// and cloning between files, space, hints to the page cache, locks, and names of
// temporary files. It knows nothing of tarballs.
//
// On Linux everything works. Elsewhere what is missing is left out where it only
// saves work, and errs on the safe side where it does not.
package sys

import (
	"cmp"
	"io"
	"os"
	"slices"
	"time"
)

// AtStep is called before each step that changes what is on the disk. Tests kill
// the process there.
var AtStep = func(step string) {}

// Flush and Close are the two calls that report what could not be written to the disk,
// of a file or a directory, and report it once. Tests make them fail.
var (
	Flush = (*os.File).Sync
	Close = (*os.File).Close
)

// Align is what offsets must be a multiple of for [CloneRange]: the block size of
// XFS, btrfs and ext4.
const Align = 4096

// ReadBuffer is how many bytes are read from a connection or a file before they are
// written. All connections write one file, whose lock they wait for: with 256 KiB
// the same work took 10 to 20 % more CPU time.
const ReadBuffer = 1 << 20

// HashBuffer is how many bytes are read and hashed at a time: they stay in the
// CPU's cache in between.
const HashBuffer = 256 << 10

// An Interval is a run of bytes, [From, To).
type Interval struct{ From, To int64 }

// Union sorts intervals and joins those that touch. It reuses the slice.
func Union(all []Interval) []Interval {
	slices.SortFunc(all, func(a, b Interval) int { return cmp.Compare(a.From, b.From) })
	joined := all[:0]
	for _, i := range all {
		if last := len(joined) - 1; last >= 0 && i.From <= joined[last].To {
			joined[last].To = max(joined[last].To, i.To)
			continue
		}
		joined = append(joined, i)
	}
	return joined
}

// Gaps returns which bytes of [0, size) none of the intervals covers. They must be
// as [Union] returns them.
func Gaps(size int64, done []Interval) []Interval {
	var gaps []Interval
	at := int64(0)
	for _, d := range done {
		if at < d.From {
			gaps = append(gaps, Interval{at, d.From})
		}
		at = d.To
	}
	if at < size {
		gaps = append(gaps, Interval{at, size})
	}
	return gaps
}

// Age returns how long ago t was; 0 for a time that is yet to come. Then a clock has
// jumped, this one or the other, and if it was this one everything seems to be from
// the future. What stays too long costs space; what goes too soon, another
// process's work.
func Age(t, now time.Time) time.Duration { return max(now.Sub(t), 0) }

// ReadChunk fills buf as far as it can and returns the reader's own error:
// [io.ReadFull] would not distinguish an early end from a connection that broke.
func ReadChunk(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var got int
		got, err = r.Read(buf[n:])
		n += got
	}
	return n, err
}
