package tagging

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
)

// Mirror returns the reference that an image has in a mirror: the mirror's
// repository with the image's whole tag, and its digest if it has one.
//
//	Mirror("308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image:T", "ghcr.io/pytorch/ci-image")
//	// ghcr.io/pytorch/ci-image:T
//
// The error wraps [ErrReference]: an image that [Name] refuses as a reference,
// or a repository that is malformed or has a tag or a digest itself.
func Mirror(image, repository string) (string, error) {
	ref, err := parse(image)
	if err != nil {
		return "", err
	}
	mirror, err := reference.ParseNormalizedNamed(repository)
	if err != nil {
		return "", fmt.Errorf("%w: mirror repository %q: %w", ErrReference, repository, err)
	}
	if !strings.Contains(repository, "/") {
		// The grammar would take "ghcr.io" for an image of that name at Docker.
		return "", fmt.Errorf("%w: mirror repository %q: want HOST/PATH", ErrReference, repository)
	}
	if !reference.IsNameOnly(mirror) {
		return "", fmt.Errorf("%w: mirror repository %q has a tag or a digest: want HOST/REPOSITORY", ErrReference, repository)
	}
	out, err := reference.WithTag(mirror, ref.tag)
	if err != nil {
		return "", fmt.Errorf("%w: mirror repository %q with tag %q: %w", ErrReference, repository, ref.tag, err)
	}
	if ref.digest == nil {
		return out.String(), nil
	}
	pinned, err := reference.WithDigest(out, ref.digest.Digest())
	if err != nil {
		return "", fmt.Errorf("%w: mirror repository %q with digest %q: %w", ErrReference, repository, ref.digest.Digest(), err)
	}
	return pinned.String(), nil
}
