package tarball

import "errors"

var (
	// ErrInvalidImage is wrapped when manifest or config cannot be stocked as they
	// are: malformed, of an unsupported kind, or contradicting each other.
	ErrInvalidImage = errors.New("unusable image")

	// ErrSize is wrapped when a source gives fewer or more bytes of a blob than the
	// manifest declares.
	ErrSize = errors.New("wrong size")

	// ErrDigest is wrapped when a blob's bytes do not have the digest that the
	// manifest declares.
	ErrDigest = errors.New("wrong digest")

	// ErrNotTarball is wrapped when a file is not a complete tarball in the form that
	// this package plans.
	ErrNotTarball = errors.New("not a tarball of this cache")
)
