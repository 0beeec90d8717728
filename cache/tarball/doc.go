// Package tarball plans, reads and verifies container images as tarballs: one file
// that container engines load and that keeps the registry's digests.
//
// Plan: the manifest and config give the place of every byte, before a layer is
// at hand. Layers can be written in any order, in parallel.
//
//	img, err := tarball.NewImage(ref, manifest, config)
//	layout, err := tarball.NewLayout(img, tarball.Provenance{})
//	for _, s := range layout.Segments() { … } // known bytes, or the whole of one layer
//
// Read and verify: the first few KiB identify the image. [Open] is for files, [Read]
// for any [io.ReaderAt].
//
//	t, err := tarball.Open(path)
//	err = t.Verify(ctx, nil)                                  // every byte
//	blob, err := t.ReadRange(ctx, digest, offset, length)     // of one layer, not verified
//	archive, err := t.Archive(func(layer v1.Hash) bool { … }) // without some layers
//
// Convert: [FromV1] takes one of go-containerregistry's images, from a registry, an
// OCI layout or memory. [Tarball.V1] gives one, to push, extract or change.
//
// A [Source] is where layers come from: a registry's repository, an image of
// FromV1, another Tarball. [cache.WriteTarball] fetches them and writes the file.
//
// All types are safe for concurrent use, but a reader that a method returns is for one
// goroutine; that of [Archive.Open] may be closed by another. An open tarball reads one
// file to its end, also when another one has taken its name. The package takes no
// locks, opens no network connections, and knows no directories.
//
// # The format
//
// A tarball is an uncompressed tar archive that is both an OCI image layout and a Docker
// archive, with the layers as the registry served them. Docker loads it with either of
// its stores, and so do podman, containerd, skopeo and crane. The entries, in
// this order:
//
//	oci-layout
//	index.json             the manifest's digest, the reference, the [Provenance]
//	manifest.json          Docker's list: config, reference, layers
//	blobs/, blobs/sha256/
//	blobs/sha256/<digest>  the manifest, as served
//	blobs/sha256/<digest>  the config, as served
//	blobs/sha256/<digest>  each index that the manifest was found through, as served
//	blobs/sha256/<digest>  each distinct layer, as served
//
// The indexes are in order, outermost first; there is none when the reference named a
// manifest. They let a reference be found that is pinned to an index's digest, and a
// registry be made of tarballs (cache/server) that gives each platform its own image.
// Engines that load the tarball pass them over: index.json lists the manifest alone.
// Versions before indexes were kept wrote the same without them, which is a tarball
// still; they do not read those that have any, and write them again.
//
// The data of each layer begins at a multiple of 4096 bytes, so that file systems can
// share it between tarballs: a PAX comment of the right length stands before its
// header. The same image and provenance give the same bytes. A file whose beginning
// or size differs from the plan of its own image is not a tarball of this package.
//
// Sources of the format: the OCI image layout specification
// (https://github.com/opencontainers/image-spec/blob/main/image-layout.md),
// Docker's image specification v1.2 (https://github.com/moby/docker-image-spec), and
// for the comments, pax in POSIX.1-2017
// (https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html).
//
// [cache.WriteTarball]: https://pkg.go.dev/github.com/dockercache/dockercache/cache#WriteTarball
package tarball
