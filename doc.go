// Package dockercache is the map of a module that keeps a CI fleet's container
// images stocked as tarballs, ready to load. It has no code itself.
//
// # The packages
//
//   - [github.com/dockercache/dockercache/artifacts] is what a finished build run
//     left behind, and which of it to trust; and what a job says to its runner.
//   - [github.com/dockercache/dockercache/tagging] derives every name from an
//     image's reference and its branch. Pure functions.
//   - [github.com/dockercache/dockercache/registry] is the remote side:
//     credentials, resolving a reference on a platform, reading ranges of blobs
//     from an ordered list of repositories.
//   - [github.com/dockercache/dockercache/registry/awsauth] is the keychain for
//     Amazon's registries, and a GitHub job's login to AWS. It alone links the SDK.
//   - [github.com/dockercache/dockercache/registry/registrytest] is a registry
//     in process with named faults, for tests.
//   - [github.com/dockercache/dockercache/cache] is the local side: the plan of a
//     tarball, filling it, and the directory that many machines share.
//   - [github.com/dockercache/dockercache/cache/loader] brings the image of a
//     tarball into a container engine, sending no more than the engine lacks.
//   - [github.com/dockercache/dockercache/cache/server] serves the images of a
//     directory as a read-only registry.
//
// None of artifacts, tagging, registry and cache imports another, so each costs
// only what it needs. They meet
// in go-containerregistry's value types (v1.Hash, v1.Descriptor) and in one
// interface of one method, cache.BlobSource, which a resolved registry.Image
// satisfies.
//
// # How they compose
//
// The way of an image, as examples/docker-cache has it:
//
//	tarball, err := tagging.Tarball(image, branch, nil)          // name_main.tar
//	mirror, err := tagging.Mirror(image, "ghcr.io/org/images")   // where to look first
//	remote, err := client.Image(ctx, platform, mirror, image)    // manifest, config
//	local, err := cache.NewImage(repoTag, remote.Manifest(), remote.Config())
//	result, err := dir.Put(ctx, tarball, local, remote, provenance)
//
// And from there into an engine, as examples/load-image has it:
//
//	stocked, err := dir.Lookup(tarball)
//	result, err := loader.Load(ctx, engine, stocked, nil)
//
// # What is guaranteed
//
//   - A file in the directory whose name has no leading dot is a complete
//     tarball, and its writer verified the size and sha256 of every blob in it.
//     This holds under SIGKILL, a full disk, several writers and a registry that
//     lies.
//   - The image in it has the manifest and config byte by byte as the registry
//     served them, the layers as served, and the reference that was asked for.
//   - Memory does not grow with the image.
//   - A failed image stops no other.
//   - No secret is in an error, a log line, a file, or a request to another
//     origin. Docker's config file is read, never written.
//
// Each of these has a test that fails without it. What is not promised yet is in
// the README under "Limits".
package dockercache
