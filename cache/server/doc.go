// Package server serves the images of a directory as a read-only registry, so that
// engines and clusters can pull what docker-cache has stocked.
//
//	dir, err := cache.Open("/var/cache/images", nil)
//	http.Serve(listener, server.New(dir, nil))
//
// [Options] has a prefix and a hook for authorization.
//
// It speaks the part of the distribution API that pulls
// (https://github.com/opencontainers/distribution-spec, version 1.1): manifests by tag
// and by digest, blobs, each with HEAD, ranges and conditions, and the lists of tags.
// Layers are read from the tarballs where they are; nothing is unpacked, and nothing
// is kept in memory but the beginnings of the tarballs.
//
// A client that has got a manifest gets its blobs, also when the tarball is replaced or
// removed in between: it stays open, see [Options.Hold].
//
// # Names
//
// An image is served under the repository of its reference, with the reference's
// host and without: registry.example/team/image:v1 is
//
//	HOST:PORT/registry.example/team/image:v1    for clients that pull from here
//	HOST:PORT/team/image:v1                     for clients that use this as a mirror
//
// A host with a port cannot be part of a repository's name: there is only the second
// then. Mirrors are asked for the second. Where images of several registries have the same
// repository and tag, the query parameter ns, which containerd sends, says which is
// meant; without it the newest is served.
//
// # Trust
//
// Without [Options.Authorize] every client that reaches the port reads every image, and
// nothing is encrypted: it is meant for loopback. Bytes are not verified on the way, for
// engines verify all that they pull.
//
// # Concurrency
//
// Handlers are safe for concurrent use, and call the functions in [Options]
// concurrently. Options are copied.
package server
