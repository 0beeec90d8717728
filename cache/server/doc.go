// Package server serves the images of a directory as a read-only registry, so that
// engines and clusters can pull what docker-cache has stocked.
//
//	dir, err := cache.Open("/var/cache/images", nil)
//	http.Serve(listener, server.New(dir, nil))
//
// [Options] has a prefix, a hook for authorization, and an [Upstream] for what is not
// stocked.
//
// It speaks the part of the distribution API that pulls
// (https://github.com/opencontainers/distribution-spec, version 1.1): manifests by tag
// and by digest, blobs, each with HEAD, ranges and conditions, the lists of tags, and
// referrers, as far as they are stocked. /healthz, below the prefix, answers 200 as long
// as the directory can be read, without authorization; /metrics has counts in the text
// format of Prometheus, with it.
// Layers are read from the tarballs where they are; nothing is unpacked, and nothing
// is kept in memory but the beginnings of the tarballs.
//
// A client that has got a manifest gets its blobs, also when the tarball is replaced or
// removed in between: it stays open, see [Options.Hold].
//
// # Names
//
// An image is served under the repository of its reference with the registry's host:
// registry.example/team/image:v1 is
//
//	HOST:PORT/registry.example/team/image:v1
//
// A path without a registry could mean any, and the image of the same name in another
// registry is another image. So it is found only where the client states which it means, by
// the query parameter ns that containerd sends with each request to a mirror, or where
// [Options.Registry] does. ns of another registry finds nothing. A host with a port cannot
// be part of a repository's name: its images need one of the two. docker.io,
// index.docker.io and registry-1.docker.io are the same.
//
// # Platforms
//
// A tag gives the index that its image was found through, byte by byte, so that each
// client chooses its platform; pinned to the index's digest it is the same. By their
// digests there are the manifests of those platforms that are stocked. Others are not
// found: clients of a mirror take them from the registry itself. Those that take all of
// an image from one place need [Options.Platforms].
//
// When several tarballs have the same reference, that of the newest build run decides what
// the tag is, or without runs the one that was written last. Its index is served, with the
// manifests of that index that any tarball of the repository has; a platform that is
// stocked for the index before only is not one of them. When the newest tarball has no
// index, one that lists its manifest may be in another tarball of the tag. Else the tag is
// that manifest, and every client gets it: so it is when the reference names no index. But
// where tarballs of the same tag without such an index are of different platforms, as those
// that were written before indexes were kept, the tag is ambiguous and is not found. A
// digest is always right.
//
// # The directory
//
// The handler knows what is in the directory, and looks at it at each request for a
// manifest or a list: one system call as long as nothing comes or goes, and then only
// files that have changed are read. What is not served, and why, goes to
// [Options.Failed] and the log, once for each file and again when that has changed.
//
// [NewOf] serves what is in a bucket, or in another [Store]. It is listed at most once in
// [Options.ListEvery], so what has come is served a little later.
//
// # What is not stocked
//
// With [Options.Upstream] a manifest that is not stocked is taken from there, if it is clear
// which repository is meant and the upstream allows that. Of an index nothing more is
// fetched until a client asks for one of its manifests. Then that image is stocked, with the tag and the index that were
// asked for before. Any number of clients cost one request for a manifest, and one
// download. A tag is asked for again after a minute, as long as it is not stocked.
//
// Blobs are served while they come, each from its beginning. The answer is cut when the
// rest does not come, and before its first byte it has a status: 404 for what the
// upstream does not have, 502 for what it does not give now. The next request tries
// again, with what has come. A manifest is answered when the layers begin to come, or after
// 10 s. So an image that cannot be fetched, or for which there is no space, is
// not promised.
//
// Up to 16 images are fetched at a time, also when their clients are gone; further ones
// wait. In memory are the last 256 manifests. A blob is found if its manifest is stocked or
// one of these.
//
// # Trust
//
// Without [Options.Authorize] every client that reaches the port reads every image, and
// nothing is encrypted: it is meant for loopback. Bytes are not verified on the way, for
// engines verify all that they pull; of a layer that is being fetched the last byte is
// sent when all of it is verified. With an upstream clients read what that may read.
//
// # Concurrency
//
// Handlers are safe for concurrent use, and call the functions in [Options]
// concurrently. Options are copied.
package server
