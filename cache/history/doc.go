// Package history is the log of what was done with the images of a directory: each stock, load,
// clone and fill appends one [Record]. [Summarize] says what it was good for.
//
// # The files
//
// A record is one line of JSON. They are in the directory, in .history.<user number>.jsonl: in a
// directory with the sticky bit nobody can write to another user's file, and hosts may be new ones
// each time, as pods are. A file that would exceed a limit, 4 MiB by default, becomes
// .history.<user number>.1.jsonl, and what had that name is gone: a user has about twice the limit
// at most. Nothing is flushed to the disk: after a power cut the last records may be lost.
//
// Each record is written by one write(2) to a file that is open for appending, under a lock that
// is waited for some milliseconds only. On a network file system the lock is what keeps the writers
// of several hosts from writing to the same place; without it lines may be torn there. The log is
// no part of what the cache promises: [Read] leaves out what is no record, and counts it. So a
// broken or hostile log costs its lines, nothing else.
//
// The files are no tarballs and nothing that a sweep removes. They count in a directory's quota.
// There is no such log in a bucket.
//
// # What is saved against a plain pull
//
// A plain pull of an image, such as that of docker pull, fetches the layers that the engine lacks,
// which are those that a load sends it, and the engine unpacks them, which takes as long as after
// a load. So for each load that succeeded:
//
//	plain pull = resolve + bytes streamed / rate + seconds of the phase engine
//	saved      = plain pull - seconds of the load
//
// resolve is the median of the phase [timing.Resolve] of all stocks, or nothing where none has it.
// The rate is not the same for a plain pull as for a stock, which opens many connections: a pull
// reads a large layer through one. How fast one is alone is not recorded. So there are two results,
// and the truth is between them: one connection may be as fast as all together were, at most,
//
//	rate, highest = bytes / seconds with at least one connection open
//
// or no faster than one was among the others,
//
//	rate, lowest = bytes / (seconds with at least one connection open * connections in the mean)
//
// each of the sums over what all stocks fetched from the registry of the image. Where there are none,
// it is over all registries that stocks fetched from, such as a mirror; [Saving.RateOf] says over which.
//
// Nothing is saved by an image that is there already: a plain pull would not fetch it either. The
// seconds that stocks took are not subtracted: no job waits for them. Where there is nothing to
// compare with, which is where no stock fetched anything, or no phases of a load are recorded, or
// the archive is another program's, with layers that are not compressed, a load counts as unknown.
// Another engine phase is not assumed: for an engine that unpacks while it pulls, the phase has only
// what is left to unpack at the end, and so has the plain pull.
package history
