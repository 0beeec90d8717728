package cache

// A span is a run of a layer's bytes, [pos, end), that one worker at a time
// fetches. Offsets are within the layer. What lies before pos is in the file;
// what lies before reserved is being written and must not be split off.
type span struct {
	start, pos, end int64
	reserved        int64
	said            int64 // up to here the journal knows it
	active          bool  // a worker has it
}

const (
	// Ranges are this long, in bytes. A connection needs some 100 ms to reach
	// its speed (name, TLS, redirect, slow start), which at 25 MB/s is 2.5 MB:
	// 8 MiB keep that below a third. Beyond 64 MiB nothing is gained, and more
	// is lost when a connection breaks in a way that gives its bytes up.
	minRange = 8 << 20
	maxRange = 64 << 20
	// rangesAhead: a range is so much of what is left of the layer that each
	// connection could get two more. So ranges get shorter towards the end, where
	// long ones would leave much to hash after the last byte came.
	rangesAhead = 2
	// minSplit: less than twice this is not worth another request.
	minSplit = 2 << 20
)

// ranging is how layers are cut; tests cut small ones.
type ranging struct{ least, most, split int64 }

var defaultRanging = ranging{minRange, maxRange, minSplit}

// length chooses the length of a range where left bytes of the layer are left.
func (r ranging) length(left int64, connections int) int64 {
	return min(max(left/int64(connections*rangesAhead), r.least), r.most)
}

// interval is a run of bytes, [from, to).
type interval struct{ from, to int64 }

// spansOf cuts the bytes of a layer into spans: those in done are complete, the
// rest is cut into ranges, whose length depends on how much of the layer is left.
// done must be sorted and without overlap.
func spansOf(size int64, length func(left int64) int64, done []interval) []*span {
	var spans []*span
	missing := func(from, to int64) {
		for from < to {
			end := min(from+length(size-from), to)
			spans = append(spans, &span{start: from, pos: from, reserved: from, said: from, end: end})
			from = end
		}
	}
	at := int64(0)
	for _, d := range done {
		missing(at, d.from)
		spans = append(spans, &span{start: d.from, pos: d.to, reserved: d.to, said: d.to, end: d.to})
		at = d.to
	}
	missing(at, size)
	return spans
}
