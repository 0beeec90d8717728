package tagging

import (
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"

	"github.com/dockercache/dockercache/internal/refname"
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
	named, err := refname.Parse(image)
	if err != nil {
		return tagged{}, fmt.Errorf("%w %q: %w", ErrReference, refname.Printable(image), err)
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

// RepoTag returns the complete name that an image has in an engine: its own
// reference with the tag and without a digest, which engines cannot assign.
//
//	RepoTag("debian:bookworm")  // docker.io/library/debian:bookworm
//
// The error wraps [ErrReference], as that of [Name].
func RepoTag(image string) (string, error) {
	ref, err := parse(image)
	if err != nil {
		return "", err
	}
	return ref.repoTag(), nil
}

func (t tagged) repoTag() string { return t.named.Name() + ":" + t.tag }

// Mirror returns the reference that an image has in a mirror: the mirror's
// repository with the image's whole tag, and its digest if it has one.
//
//	Mirror("308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image:T", "ghcr.io/pytorch/ci-image")
//	// ghcr.io/pytorch/ci-image:T
//
// The error wraps [ErrReference]: a reference that [Name] refuses, or a
// repository that is malformed or has a tag or a digest itself.
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
	out := mirror.Name() + ":" + ref.tag
	if ref.digest != nil {
		out += "@" + ref.digest.Digest().String()
	}
	return out, nil
}
