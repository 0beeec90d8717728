package report

import (
	"cmp"
	"fmt"

	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/examples/internal/cli"
)

const (
	// much is how large a part of the time is worth a word.
	much = 0.3
	// least is how many seconds that must be.
	least = 10
	// manyRefused is how large a part of the requests is worth a word.
	manyRefused = 0.1
)

// off says what is unusual in how an image was stocked, and what can be done about it; "" for
// nothing.
func (r *Stocked) off() string {
	for _, s := range r.Sources {
		if s.Refused > 0 && float64(s.Refused) >= manyRefused*float64(s.Requests) {
			return fmt.Sprintf("%s refused %d of %d requests, and was asked again later: log in, or ask for a higher limit", cmp.Or(s.Repository, "the source"), s.Refused, s.Requests)
		}
		if s.BytesDuplicate > 0 && float64(s.BytesDuplicate) >= 0.04*float64(s.Bytes) { // of 5 % at most
			return fmt.Sprintf("%s of %s came twice, since connections to %s were slow: a mirror may be faster", cli.Bytes(s.BytesDuplicate), cli.Bytes(s.Bytes), cmp.Or(s.Repository, "the source"))
		}
	}
	for _, hint := range []struct {
		phase timing.Phase
		text  string
	}{
		{timing.Lock, "waiting for another run, or another image of this one, that brought the same"},
		{timing.FirstByte, "waiting for the first byte: a cache in front of the registry may fetch whole layers first"},
		{timing.Copy, "copying layers from other tarballs: XFS and btrfs share them in no time"},
		{timing.Hash, "hashing what was there: the storage is slow to read, or the processors are busy"},
		{timing.Publish, "flushing to the disk: the storage is slow to write; cache-admin advise measures whether it pays"},
		{timing.Send, "sending to the bucket: its server is slower than the registry"},
	} {
		if s := r.Phases[hint.phase]; s >= least && s >= much*r.Seconds {
			return fmt.Sprintf("%.0f of %.0f s were spent %s", s, r.Seconds, hint.text)
		}
	}
	return ""
}
