package server

import (
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/dockercache/dockercache/internal/platform"
)

// document is a manifest or an index, as it is served.
type document struct {
	raw       []byte
	digest    v1.Hash
	mediaType types.MediaType
	image     image // whose tarball it is in
}

func manifestOf(i image) *document {
	return &document{i.info.Image.Manifest(), i.info.Image.Digest(), i.info.Image.MediaType(), i}
}

// byTag returns what a tag of a repository is, nil if there is nothing that is right for
// every client; and the images that this was found from. images are those of the
// repository, the newest first.
//
// The newest tarball of the tag decides: it is the outermost index that its image was
// found through. If it has none, another tarball of the tag may have the index that lists
// its manifest. Without any its manifest is the tag's, unless there is another platform's
// as well: a tarball without an index may be of a version that did not keep it.
func (s *server) byTag(images []image, tag string) (*document, []image) {
	var tagged []image
	for _, i := range images {
		if i.tag == tag {
			tagged = append(tagged, i)
		}
	}
	if len(tagged) == 0 {
		return nil, nil
	}
	newest := tagged[0]
	for _, i := range tagged {
		if len(i.indexes) > 0 && (i.file == newest.file || i.lists(newest.info.Image.Digest())) {
			return s.indexOf(images, i, i.indexes[0]), tagged
		}
	}
	for _, i := range tagged {
		if !isSame(i.platform, newest.platform) {
			return nil, tagged
		}
	}
	return manifestOf(newest), tagged
}

// byDigest is [server.byTag] for a digest, of a manifest or of an index.
func (s *server) byDigest(images []image, digest v1.Hash) (*document, []image) {
	for _, i := range images {
		if i.info.Image.Digest() == digest {
			return manifestOf(i), []image{i}
		}
	}
	for _, i := range images {
		for _, x := range i.indexes {
			if x.digest == digest {
				return s.indexOf(images, i, x), []image{i}
			}
		}
	}
	return nil, nil
}

// indexOf returns an index of an image of a repository, unless one of [Options.Platforms]
// would be given the digest of a manifest that is not there.
func (s *server) indexOf(images []image, i image, x index) *document {
	for _, p := range s.Platforms {
		if !hasPlatform(images, x, p) {
			return nil
		}
	}
	return &document{x.raw, x.digest, x.mediaType, i}
}

// hasPlatform reports whether the repository's images are all that an index has for a
// platform. Which of several variants a client takes depends on the client: that of the
// same name, else it may be any.
func hasPlatform(images []image, x index, p v1.Platform) bool {
	var exact, near []v1.Hash
	complete := true
	var collect func(x index)
	collect = func(x index) {
		for _, e := range x.entries {
			if e.MediaType.IsIndex() {
				if nested := findIndex(images, e.Digest); nested != nil {
					collect(*nested)
				} else if e.Platform == nil || isNear(*e.Platform, p) {
					complete = false // it may be in there
				}
				continue
			}
			switch {
			case e.Platform == nil:
			case isSame(*e.Platform, p):
				exact = append(exact, e.Digest)
			case isNear(*e.Platform, p):
				near = append(near, e.Digest)
			}
		}
	}
	collect(x)
	if len(exact) > 0 {
		return hasManifest(images, exact[0])
	}
	return complete && !slices.ContainsFunc(near, func(d v1.Hash) bool { return !hasManifest(images, d) })
}

func hasManifest(images []image, digest v1.Hash) bool {
	return slices.ContainsFunc(images, func(i image) bool { return i.info.Image.Digest() == digest })
}

func findIndex(images []image, digest v1.Hash) *index {
	for _, i := range images {
		for n, x := range i.indexes {
			if x.digest == digest {
				return &i.indexes[n]
			}
		}
	}
	return nil
}

// isNear reports whether two platforms differ by their variants at most.
func isNear(a, b v1.Platform) bool {
	a, b = platform.Normalize(a), platform.Normalize(b)
	return a.OS == b.OS && a.Architecture == b.Architecture
}

// isSame reports whether two platforms are the same.
func isSame(a, b v1.Platform) bool {
	return isNear(a, b) && platform.Normalize(a).Variant == platform.Normalize(b).Variant
}
