// Package cache is the local side: it plans the tarball of an image before a
// byte is pulled, fills it, and keeps it in a directory that many machines
// share.
//
// The way of one image:
//
//   - [NewImage]: manifest and config bytes, checked, and the reference to load
//     it as
//   - [NewLayout]: the exact byte plan of its tarball, pure and deterministic
//   - [Engine.Fill]: plan and [BlobSource] to bytes, every layer's sha256 proven
//   - [Dir.Put]: the last two, published under its name by rename
//
// Most programs need only [NewImage], [OpenDir] and [Dir.Put]. [ReadTarball] and
// [Dir.Lookup] go the other way: from a file to the image that it holds, by
// reading its first few KiB.
//
// [Dir.Check] tells from a digest alone whether there is anything to do. To look
// after a directory: [Dir.List], [Dir.Verify] and [Dir.Repair], [Dir.Prune] and
// [Dir.Sweep]. Prune leaves what is in use: by locks on every machine that they
// reach and, on Linux, by leases, whatever else on this machine has the file open.
//
// # The tarball
//
// An uncompressed tar that is an OCI image layout and a Docker archive at once,
// with the layers as the registry served them. One file loads in Docker's
// classic and containerd stores, podman, containerd, skopeo and crane, and
// keeps the registry's digest where the store can. The entries, in this order:
//
//	oci-layout
//	index.json             the manifest's digest, the reference, the [Provenance]
//	manifest.json          Docker's list: config, reference, layers
//	blobs/, blobs/sha256/
//	blobs/sha256/<digest>  the manifest, as served
//	blobs/sha256/<digest>  the config, as served
//	blobs/sha256/<digest>  each distinct layer, as served
//
// Sources of the format: the OCI image layout specification
// (https://github.com/opencontainers/image-spec/blob/main/image-layout.md) and
// Docker's image specification v1.2
// (https://github.com/moby/docker-image-spec).
//
// # What is promised
//
// A name in the directory without a leading dot is a complete tarball whose
// every digest was verified by the one who wrote it: also after SIGKILL, with
// a full disk, with two writers, with a registry that lies. A reader sees the old
// tarball or the new one, whole.
//
// Layers that a tarball in the directory has, or that another image is fetching in
// the same process, are taken from there: cloned, copied, and proven like all.
// Beside a tarball there may be .<tarball>.mark, which says when it was last used,
// .<tarball>.lock while somebody writes it, and .<tarball>.<time>.<unique>.retired,
// a version that was replaced. [OpenDir] says who may share a directory.
//
// Work in progress is in .<tarball>.<digest>.<unique>.partial, with a journal of
// what is in it beside. No two writers share one. What a dead one left is taken
// over by the next for the same image, and proven before it is published.
//
// The package opens no network connection and imports no package of this
// module; what it needs from outside it states as [BlobSource].
package cache
