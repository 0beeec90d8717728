package report

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/dockercache/dockercache/cache/timing"
)

func TestOff(t *testing.T) {
	for want, r := range map[string]*Stocked{
		"ghcr.io/x refused 10 of 100 requests, and was asked again later: log in, or ask for a higher limit":                    {Sources: []Source{{Repository: "ghcr.io/x", Requests: 100, Refused: 10}}},
		"the source refused 1 of 1 requests, and was asked again later: log in, or ask for a higher limit":                      {Sources: []Source{{}, {Requests: 1, Refused: 1}}},
		"4.0 KiB of 100 KiB came twice, since connections to ghcr.io/x were slow: a mirror may be faster":                       {Sources: []Source{{Repository: "ghcr.io/x", Bytes: 100 << 10, BytesDuplicate: 4 << 10}}},
		"30 of 100 s were spent waiting for another run, or another image of this one, that brought the same":                   {Seconds: 100, Phases: Phases{timing.Lock: 30}},
		"10 of 20 s were spent waiting for the first byte: a cache in front of the registry may fetch whole layers first":       {Seconds: 20, Phases: Phases{timing.FirstByte: 10}},
		"10 of 20 s were spent copying layers from other tarballs: XFS and btrfs share them in no time":                         {Seconds: 20, Phases: Phases{timing.Copy: 10}},
		"10 of 20 s were spent hashing what was there: the storage is slow to read, or the processors are busy":                 {Seconds: 20, Phases: Phases{timing.Hash: 10}},
		"10 of 20 s were spent flushing to the disk: the storage is slow to write; cache-admin advise measures whether it pays": {Seconds: 20, Phases: Phases{timing.Publish: 10}},
		"12 of 20 s were spent sending to the bucket: its server is slower than the registry":                                   {Seconds: 20, Phases: Phases{timing.Send: 12}},
	} {
		assert.Equal(t, want, r.off())
	}
	for name, r := range map[string]*Stocked{
		"nothing":        {},
		"few refusals":   {Sources: []Source{{Requests: 100, Refused: 9}}},
		"few duplicates": {Sources: []Source{{Bytes: 1000, BytesDuplicate: 39}}},
		"not long":       {Seconds: 10, Phases: Phases{timing.Lock: 9.9}},
		"a small part":   {Seconds: 100, Phases: Phases{timing.Publish: 29}},
		"it fetches":     {Seconds: 100, Phases: Phases{timing.Fetch: 100, timing.Resolve: 99}},
	} {
		assert.Empty(t, r.off(), name)
	}
}
