package loader

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// dockerZstd is the media type that BuildKit gives a layer in zstd in a manifest of
// Docker's.
const dockerZstd types.MediaType = "application/vnd.docker.image.rootfs.diff.tar.zstd"

// checkZstd returns an error when the image has a layer in zstd that the engine does not
// have, and cannot unpack.
func (l *load) checkZstd(ctx context.Context, has func() map[v1.Hash]bool) error {
	engine, ok := l.engine.(ZstdReader)
	if !ok {
		return nil
	}
	for _, d := range l.image.Layers() {
		zstd, err := l.isZstd(ctx, d)
		if err != nil {
			return err
		}
		if !zstd {
			continue
		}
		if err := engine.ReadsZstd(ctx, d.MediaType); err != nil && !has()[d.Digest] {
			return fmt.Errorf("layer %s (%s): %w", d.Digest, d.MediaType, err)
		}
	}
	return nil
}

// isZstd reports whether a layer is in zstd: by its first bytes, which some engines go by,
// or by its media type, which others go by
// (https://www.rfc-editor.org/rfc/rfc8878#name-zstandard-frames).
func (l *load) isZstd(ctx context.Context, d v1.Descriptor) (bool, error) {
	if strings.HasSuffix(string(d.MediaType), "zstd") {
		return true, nil
	}
	magic := []byte{0x28, 0xb5, 0x2f, 0xfd}
	if d.Size < int64(len(magic)) {
		return false, nil
	}
	r, err := l.tarball.ReadRange(ctx, d.Digest, 0, int64(len(magic)))
	if err != nil {
		return false, err
	}
	defer r.Close()
	first, err := io.ReadAll(r)
	if err != nil {
		return false, &readError{err}
	}
	return bytes.Equal(first, magic), nil
}

// containerdReadsZstd is [ZstdReader].ReadsZstd of a containerd: since 1.5 it unpacks OCI's
// media type (https://github.com/containerd/containerd/pull/4809), since 2.0 Docker's
// (https://github.com/containerd/containerd/pull/9859).
func containerdReadsZstd(is string, mediaType types.MediaType) error {
	v, err := parseVersion(is)
	switch {
	case err != nil:
		return nil
	case mediaType == dockerZstd && v < version(2, 0):
		return fmt.Errorf("%w: containerd %s does not unpack layers in zstd with Docker's media type, containerd 2.0 and later do: update it, or build the image with OCI media types, or with gzip", ErrUnsupported, is)
	case v < version(1, 5):
		return fmt.Errorf("%w: containerd %s does not unpack layers in zstd, containerd 1.5 and later do: update it, or build the image with gzip", ErrUnsupported, is)
	}
	return nil
}
