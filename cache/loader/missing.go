package loader

import (
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
)

// chainHas returns the layers of an image that a store has which knows layers by
// their chains, as Docker's classic store and podman's do: a layer is there only
// on top of all that are below it. rootFS are the diff IDs of the local images.
func chainHas(image *cache.Image, rootFS [][]v1.Hash) map[v1.Hash]bool {
	want := image.DiffIDs()
	prefix := 0
	for _, have := range rootFS {
		n := 0
		for n < min(len(have), len(want)) && have[n] == want[n] {
			n++
		}
		prefix = max(prefix, n)
	}
	has := map[v1.Hash]bool{}
	for i, l := range image.Layers() {
		// The same layer further up is another chain, and its blob is needed again.
		has[l.Digest] = i < prefix
	}
	return has
}

// blobHas returns the layers of an image that a store has which knows them by
// digest, as containerd's does. An engine tells only the diff IDs of its images,
// so it is a guess that these came from the same blobs.
func blobHas(image *cache.Image, rootFS [][]v1.Hash) map[v1.Hash]bool {
	local := map[v1.Hash]bool{}
	for _, have := range rootFS {
		for _, id := range have {
			local[id] = true
		}
	}
	has := map[v1.Hash]bool{}
	diffIDs := image.DiffIDs()
	for i, l := range image.Layers() {
		has[l.Digest] = local[diffIDs[i]]
	}
	return has
}
