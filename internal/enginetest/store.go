package enginetest

import (
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A store is what an engine keeps.
type store struct {
	kind   Kind
	names  map[string]v1.Hash
	images map[v1.Hash]*stored
	chains map[v1.Hash]layer  // unpacked layers
	blobs  map[v1.Hash][]byte // with Containerd only
	// unpackedNow are the sizes of the layers' files that the load under way has unpacked.
	unpackedNow []int
	diesFirst   bool // before it unpacks a layer, see [Quirks].DiesUnpacking
}

// stored is an image.
type stored struct {
	id      v1.Hash
	diffIDs []v1.Hash
	blobs   []v1.Hash // manifest, config, layers; with Containerd only
}

func newStore(kind Kind) *store {
	return &store{kind: kind, names: map[string]v1.Hash{}, images: map[v1.Hash]*stored{}, chains: map[v1.Hash]layer{}, blobs: map[v1.Hash][]byte{}}
}

// find returns the image that has a name, or an identity, with or without its
// algorithm.
func (s *store) find(name string) (*stored, error) {
	id, ok := s.names[name]
	if !ok {
		id = v1.Hash{Algorithm: "sha256", Hex: strings.TrimPrefix(name, "sha256:")}
	}
	img, ok := s.images[id]
	if !ok {
		return nil, failure("No such image: %s", name)
	}
	return img, nil
}

// namesOf returns the names that an image has.
func (s *store) namesOf(img *stored) []string {
	names := []string{}
	for name, id := range s.names {
		if id == img.id {
			names = append(names, name)
		}
	}
	return names
}

// files returns what a container of the image would have.
func (s *store) files(img *stored) (map[string]string, error) {
	files := map[string]string{}
	for i := range img.diffIDs {
		l, ok := s.chains[chainOf(img.diffIDs[:i+1])]
		if !ok {
			return nil, fmt.Errorf("layer %d of image %s does not exist", i, img.id)
		}
		l.apply(files)
	}
	return files, nil
}

// available reports whether all blobs of an image are there.
func (s *store) available(img *stored) bool {
	for _, b := range img.blobs {
		if _, ok := s.blobs[b]; !ok {
			return false
		}
	}
	return true
}

// unpacked returns how many bytes the unpacked files of an image have; none if it
// is not unpacked as a whole.
func (s *store) unpacked(img *stored) int {
	files, err := s.files(img)
	if err != nil {
		return 0
	}
	size := 4096 // the directory
	for _, content := range files {
		size += len(content)
	}
	return size
}

// remove takes a name away, and the image with the last of its names.
func (s *store) remove(name string) error {
	img, err := s.find(name)
	if err != nil {
		return err
	}
	delete(s.names, name)
	if len(s.namesOf(img)) == 0 {
		delete(s.images, img.id)
	}
	s.collect()
	return nil
}

// collect drops what belongs to no image.
func (s *store) collect() {
	chains, blobs := map[v1.Hash]bool{}, map[v1.Hash]bool{}
	for _, img := range s.images {
		for i := range img.diffIDs {
			chains[chainOf(img.diffIDs[:i+1])] = true
		}
		for _, b := range img.blobs {
			blobs[b] = true
		}
	}
	for c := range s.chains {
		if !chains[c] {
			delete(s.chains, c)
		}
	}
	for b := range s.blobs {
		if !blobs[b] {
			delete(s.blobs, b)
		}
	}
}
