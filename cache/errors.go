package cache

import "errors"

var (
	// ErrImage is wrapped when manifest or config cannot be stocked as they
	// are: malformed, of an unsupported kind, or contradicting each other.
	ErrImage = errors.New("unusable image")

	// ErrBlobSize is wrapped when a source gives fewer or more bytes of a
	// blob than the manifest declares.
	ErrBlobSize = errors.New("wrong size")

	// ErrBlobDigest is wrapped when a blob's bytes do not have the digest that
	// the manifest declares.
	ErrBlobDigest = errors.New("wrong digest")

	// ErrNotTarball is wrapped when a file is not a complete tarball in the
	// form that this package writes.
	ErrNotTarball = errors.New("not a tarball of this cache")

	// ErrReplaced is wrapped when a file is no longer the one that was read.
	ErrReplaced = errors.New("replaced by another file since it was read")

	// ErrName is wrapped when a name cannot be that of a tarball in a [Dir].
	ErrName = errors.New("unusable tarball name")
)
