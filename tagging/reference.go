package tagging

import (
	"errors"
	"fmt"

	"github.com/distribution/reference"
)

// ErrReference is wrapped by every error about an image reference, or about
// the repository of a mirror.
var ErrReference = errors.New("unusable image reference")

// tagged is an image reference whose grammar was checked and that has a tag.
type tagged struct {
	named  reference.Named // repository only
	tag    string
	digest reference.Digested // nil when the reference has no digest
}

// parse checks image against the grammar of distribution/reference, the one
// that Docker and the registries use. go-containerregistry's parser is not
// enough to make a path from: it lets "a/../b", ":-t" and ":.t" through and
// drops the tag of "x:tag@sha256:…".
func parse(image string) (tagged, error) {
	if image == "" {
		return tagged{}, fmt.Errorf("%w: it is empty: did the build that should have named it fail?", ErrReference)
	}
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return tagged{}, fmt.Errorf("%w %q: %w", ErrReference, image, err)
	}
	t := tagged{named: reference.TrimNamed(named)}
	if d, ok := named.(reference.Digested); ok {
		t.digest = d
	}
	withTag, ok := named.(reference.Tagged)
	if !ok {
		const want = "the tarball is named after the tag: want REPOSITORY:TAG"
		if t.digest != nil {
			return tagged{}, fmt.Errorf("%w %q: it has a digest but no tag: %s", ErrReference, image, want)
		}
		return tagged{}, fmt.Errorf("%w %q: it has no tag: %s", ErrReference, image, want)
	}
	t.tag = withTag.Tag()
	return t, nil
}
