package cache

import (
	"context"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A BlobSource gives ranges of blobs. A repository in a registry is one, and
// so is an ordered list of them. It is called concurrently.
type BlobSource interface {
	// ReadRange returns the length bytes from offset on of the blob with this
	// digest. Length is at least 1. The reader ends after length bytes, or
	// with an error when the source has fewer or more than it should; it must
	// be closed, and ctx ends it too. The bytes need not be verified.
	ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error)
}
