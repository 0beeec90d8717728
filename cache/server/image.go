package server

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagespec"
	"github.com/dockercache/dockercache/internal/refname"
)

// image is the image of a tarball, and what it is served as.
type image struct {
	info    *tarball.Info
	file    string // the tarball's name in the directory
	version version
	marks   []string // the records beside it
	mark    string   // their versions
	run     tarball.Run
	written time.Time

	name     string // of its repository, with the registry's host
	tag      string
	platform v1.Platform
	indexes  []index // that it was found through, outermost first
}

// index is an index that a tarball keeps.
type index struct {
	raw       []byte
	digest    v1.Hash
	mediaType types.MediaType
	entries   []imagespec.Entry
}

func newIndex(raw []byte) (index, error) {
	mediaType, err := imagespec.MediaType(raw)
	if err != nil {
		return index{}, err
	}
	entries, err := imagespec.Index(raw)
	return index{raw, imagespec.DigestOf(raw), cmp.Or(mediaType, types.OCIImageIndex), entries}, err
}

// newImage returns what the image of the tarball called name is served as.
func newImage(name string, info *tarball.Info) (image, error) {
	named, err := reference.ParseNormalizedNamed(info.Image.Reference())
	if err != nil {
		return image{}, err // cannot be: it was checked when the image was made
	}
	i := image{info: info, file: name, platform: info.Image.Platform(), name: host(reference.Domain(named)) + "/" + reference.Path(named), tag: "latest"}
	if tagged, ok := named.(reference.Tagged); ok {
		i.tag = tagged.Tag()
	}
	for _, raw := range info.Image.Indexes() {
		x, err := newIndex(raw)
		if err != nil {
			return image{}, err // likewise
		}
		i.indexes = append(i.indexes, x)
	}
	return i, nil
}

// lists reports whether one of the indexes of an image lists a digest.
func (i *image) lists(digest v1.Hash) bool {
	return slices.ContainsFunc(i.indexes, func(x index) bool {
		return slices.ContainsFunc(x.entries, func(e imagespec.Entry) bool { return e.Digest == digest })
	})
}

// host returns the one name of a registry. Docker Hub has several.
func host(name string) string {
	if name = strings.ToLower(name); slices.Contains(refname.Hub, name) {
		return refname.Hub[0]
	}
	return name
}

// listing is all that is served. It does not change.
type listing struct {
	all   []image            // the newest first
	names map[string][]image // by repository
}

func newListing(all []image) *listing {
	// Of several that have the same reference, the one of the newest run; without
	// runs, the one that was written last.
	slices.SortFunc(all, func(a, b image) int {
		return cmp.Or(cmp.Compare(b.run.ID, a.run.ID), cmp.Compare(b.run.Attempt, a.run.Attempt), b.written.Compare(a.written), cmp.Compare(a.file, b.file))
	})
	l := &listing{all: all, names: map[string][]image{}}
	for _, i := range all {
		l.names[i.name] = append(l.names[i.name], i)
	}
	return l
}

// A question is what a request asks about.
type question struct {
	repository string // as in the path
	ns         string // the registry that a client of a mirror means; "" if it states none
}

// means returns the repositories that a question may be about. An answer may only come
// from one: the tag that one registry gives an image means nothing at another.
func (s *server) means(q question) []string {
	first, rest, _ := strings.Cut(q.repository, "/")
	named := q.repository // if it begins with a registry
	if rest != "" {
		named = host(first) + "/" + rest
	}
	switch {
	case !s.lists: // of one image, which has the name that it was given
		return []string{q.repository}
	case q.ns != "" && host(first) == host(q.ns): // a mirror of one registry, at a path of its own
		return []string{host(q.ns) + "/" + q.repository, named}
	case q.ns != "":
		return []string{host(q.ns) + "/" + q.repository}
	case s.Registry != "":
		return []string{host(s.Registry) + "/" + q.repository, named}
	}
	return []string{named}
}

// called returns the images that a question is about, of which some are known and some
// may be held still.
func (s *server) called(known *listing, held []image, q question) []image {
	var found []image
	repositories := 0
	for _, name := range s.means(q) {
		images := slices.Clip(known.names[name])
		for _, i := range held {
			if i.name == name {
				images = append(images, i)
			}
		}
		if len(images) > 0 {
			repositories++
			found = images
		}
	}
	if repositories > 1 {
		return nil
	}
	return found
}
