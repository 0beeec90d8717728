// Package cache keeps container images as tarballs: one file, or a directory of them
// that many machines share.
//
//   - [WriteTarball] writes one tarball to any path, atomically.
//   - [Open] opens a shared directory. [Dir.Stock] and [Dir.Put] put an image into it,
//     [Dir.Get] opens what is there.
//   - [Dir.List], [Dir.Verify], [Dir.Repair], [Dir.Prune], [Dir.Remove] and [Dir.Sweep]
//     look after it.
//
// To stock an image that a registry has, with the reference that it shall have once it
// is loaded:
//
//	remote, err := client.Resolve(ctx, platform, mirror, image) // package registry: one request
//	dir, err := cache.Open(path, nil)
//	result, err := dir.Stock(ctx, "py3.12_main.tar", ref, remote, nil)
//
// Any image will do that gives its manifest, its config, and its layers in ranges:
// [tarball.NewImage] and a [tarball.Source], or one of go-containerregistry's by
// [tarball.FromV1].
//
// # Packages below
//
//   - [tarball]: the format. Plan, read and verify a tarball, over any [io.ReaderAt].
//   - [atomicfile]: files that appear whole or not at all.
//   - loader: from a tarball into a container engine, no more than it lacks.
//   - server: the directory as a read-only registry.
//
// # What is promised
//
// A name in the directory without a leading dot is a complete tarball whose
// every digest was verified by its writer: also after SIGKILL, with
// a full disk, with two writers, with a registry that lies. A reader sees the old
// tarball or the new one, whole, and what it has open it can read to its end.
//
// Verified means hashed, by the writer or before: a layer that is cloned, or copied without
// the writer reading it, from a tarball that has not changed since it was verified, less
// than [Options.TrustFor] ago, is not read back. See [Open] for when that is so, and
// [PutOptions.Verify] to hash everything.
//
// After a flush or a close that failed nothing that was written before it is used again:
// the kernel reports once that it could not write what it had accepted, and reads it back
// right, from memory, until it forgets it. The file is removed, and the next attempt
// downloads it again.
//
// An older build run does not replace what a newer one has published, also if it was
// suspended for hours: that is looked at just before the rename. On file systems where
// locks do not reach from host to host nothing is between that look and the rename, so a
// suspension in that instant is not seen.
//
// A layer that another tarball already has, or that another image is fetching in
// the same process, is not downloaded: it is cloned or copied. One that comes too slowly to
// the other image is downloaded, see [Dir.Put].
//
// # Files with a leading dot
//
//   - .<tarball>.<digest>.<unique>.partial is work in progress, with a journal of what is
//     in it beside. No two writers share one. What a dead one left is adopted
//     by the next for the same image: read back from the disk, and verified before it is
//     published. Where the writer may live, as on another host, it is cloned or copied into
//     a new file.
//   - .<tarball>.lock says who writes a tarball, and how its work goes on; .lock.next who
//     does that work although the lock has an owner, see [Open]; .lock.wanted, .lock.next.wanted
//     who asks for the lock. .prune.lock and .quota.lock are of the whole directory.
//   - .<tarball>.mark records when a tarball was last used, and its newest build run. Where
//     it belongs to another user and may not be replaced, .<tarball>.<user number>.mark
//     does so too.
//   - .<tarball>.<user number>.verified records when the bytes of a tarball were hashed, by
//     that user, and the state of its file then.
//   - .<tarball>.<time>.<unique>.retired is a version that was replaced.
//
// None of them is written to unless this process, or one of the same user, has made it:
// another user may have put a link or a second name of any file in its place. Locks can
// be opened by those who may write to the directory, marks and verifications be read by
// those who may list it, whatever the umask is.
//
// Machines with different versions of this package may share a directory, with one
// exception: versions that did not keep indexes do not read a tarball that contains one, and
// write it again, also for an older run. They must no longer write to the directory. Versions
// that did not record verifications hash every layer, and leave the record behind when they
// remove a tarball: [Dir.Sweep] removes it.
//
// # Concurrency
//
// [Dir] is safe for concurrent use. Options are copied when a function is called, but for
// the values that they point to; results belong to the caller.
//
// The package opens no network connection and imports no other of the four packages of
// this module; what it needs from outside it states as [Remote] and [tarball.Source].
package cache
