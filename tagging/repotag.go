package tagging

import (
	"fmt"

	"github.com/distribution/reference"
)

// RepoTag returns the complete name that an image has in an engine: its own
// reference with the tag and without a digest, which engines cannot give.
//
//	RepoTag("debian:bookworm")  // docker.io/library/debian:bookworm
//
// The error wraps [ErrReference], as that of [Name].
func RepoTag(image string) (string, error) {
	ref, err := parse(image)
	if err != nil {
		return "", err
	}
	named, err := reference.WithTag(ref.named, ref.tag)
	if err != nil {
		return "", fmt.Errorf("%w %q: %w", ErrReference, image, err)
	}
	return named.String(), nil
}
