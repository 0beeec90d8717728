// Package dockercache is the map of a module that keeps a CI fleet's container
// images stocked as tarballs, and has them ready when a job needs them. It has no
// code itself.
//
// # The packages
//
//   - [github.com/dockercache/dockercache/tagging] derives every name from an
//     image's reference and its branch. Pure functions.
//   - [github.com/dockercache/dockercache/artifacts] finds out which images a
//     finished GitHub Actions run built, and whether to trust it; below it,
//     artifacts/workflow is what a job says to its runner.
//   - [github.com/dockercache/dockercache/registry] is the remote side:
//     credentials, resolving a reference on a platform, reading ranges of blobs
//     from an ordered list of repositories. registry/awsauth is the keychain for
//     Amazon's registries; it alone links the AWS SDK.
//   - [github.com/dockercache/dockercache/cache] is the local side: one tarball
//     anywhere, or a directory of them that many machines share. Below it are
//     cache/tarball, the format; cache/atomicfile; cache/bucket, the same promises
//     on an object store; cache/loader, from a tarball into a container engine, and
//     cache/loader/keep, which does so whenever there is a new one; cache/dataroot, an
//     engine's data root with images in it; cache/history, the log of what was done;
//     and cache/server, the directory as a registry.
//   - [github.com/dockercache/dockercache/registry/registrytest] and
//     artifacts/artifactstest are a registry and the Actions API in process, with
//     named faults, for tests.
//
// None of artifacts, tagging, registry and cache imports another, so each costs
// only what it needs. They meet in go-containerregistry's value types (v1.Hash,
// v1.Descriptor) and in small interfaces: a resolved registry.Resolved is a
// cache.Remote, a registry.Image a tarball.Source.
//
// # How they compose
//
// The way of an image, as in examples/docker-cache:
//
//	names, err := tagging.Scheme{}.Names(image, branch, "")      // NAME_main.tar
//	mirror, err := tagging.Mirror(image, "ghcr.io/org/images")   // where to look first
//	remote, err := client.Resolve(ctx, platform, mirror, image)  // one request
//	result, err := dir.Stock(ctx, names.Tarball, names.RepoTag, remote, nil)
//
// And from there into an engine, as in examples/load-image:
//
//	stocked, err := dir.Get(ctx, names.Tarball)
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
// Each of these has a test that fails without it. What is not promised is in
// the README under "Limits".
package dockercache
