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

// A ref is an image reference whose grammar was checked and that has a tag or a digest.
type ref struct {
	named  reference.Named // repository only
	tag    string
	digest reference.Digested // nil when the reference has no digest
}

// parse checks image against the grammar of distribution/reference, the one
// that Docker and the registries use. go-containerregistry's parser is not
// enough to make a path from: it lets "a/../b", ":-t" and ":.t" through and
// drops the tag of "x:tag@sha256:…".
func parse(image string) (ref, error) {
	if image == "" {
		return ref{}, fmt.Errorf("%w: it is empty: did the build that should have named it fail?", ErrReference)
	}
	named, err := refname.Parse(image)
	if err != nil {
		return ref{}, fmt.Errorf("%w %q: %w", ErrReference, refname.Printable(image), err)
	}
	r := ref{named: reference.TrimNamed(named)}
	if d, ok := named.(reference.Digested); ok {
		r.digest = d
	}
	if t, ok := named.(reference.Tagged); ok {
		r.tag = t.Tag()
	}
	if r.tag == "" && r.digest == nil {
		return ref{}, fmt.Errorf("%w %q: it has no tag: the tarball is named after the tag: want REPOSITORY:TAG", ErrReference, image)
	}
	return r, nil
}

// RepoTag returns the complete name that an image has in an engine: its own
// reference with the tag and without a digest, which engines cannot assign.
//
//	RepoTag("debian:bookworm")  // docker.io/library/debian:bookworm
//
// A reference that has a digest and no tag gets the tag "digest-" and the digest's
// hexadecimal digits: engines need a tag, and no image of a registry has this one.
//
// The error wraps [ErrReference]: an empty or malformed reference, or one without a
// tag and a digest.
func RepoTag(image string) (string, error) {
	r, err := parse(image)
	if err != nil {
		return "", err
	}
	return r.repoTag(), nil
}

func (r ref) repoTag() string {
	if r.tag == "" {
		return r.named.Name() + ":digest-" + r.digest.Digest().Encoded()
	}
	return r.named.Name() + ":" + r.tag
}

// in returns the reference in another repository.
func (r ref) in(repository string) string {
	if r.tag != "" {
		repository += ":" + r.tag
	}
	if r.digest != nil {
		repository += "@" + r.digest.Digest().String()
	}
	return repository
}

// Mirror returns the reference that an image has in a mirror: the mirror's
// repository with the image's whole tag, and its digest if it has one. [MirrorRules]
// define which repositories have which mirror.
//
//	Mirror("308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image:T", "ghcr.io/pytorch/ci-image")
//	// ghcr.io/pytorch/ci-image:T
//
// The error wraps [ErrReference]: a reference that [RepoTag] refuses, or a
// repository that is malformed or has a tag or a digest itself.
func Mirror(image, repository string) (string, error) {
	r, err := parse(image)
	if err != nil {
		return "", err
	}
	mirror, err := mirrorRepository(repository)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrReference, err)
	}
	return r.in(mirror), nil
}

func mirrorRepository(repository string) (string, error) {
	mirror, err := refname.Parse(repository)
	switch {
	case err != nil:
		return "", fmt.Errorf("mirror repository %q: %w", refname.Printable(repository), err)
	case !strings.Contains(repository, "/"):
		// The grammar would take "ghcr.io" for an image of that name at Docker.
		return "", fmt.Errorf("mirror repository %q: want HOST/PATH", repository)
	case !reference.IsNameOnly(mirror):
		return "", fmt.Errorf("mirror repository %q has a tag or a digest: want HOST/REPOSITORY", repository)
	}
	return mirror.Name(), nil
}
