package tarball

import (
	"context"
	"fmt"
	"io"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/dockercache/dockercache/internal/wait"
)

// FromV1 returns the image and source of one of go-containerregistry's images: from a
// registry, an OCI layout, or made in memory. Manifest, config and layers keep their
// digests. ref is as for [NewImage], and so are the errors, beside those of img.
//
// Each layer is read as one stream, since a [v1.Layer] has no ranges.
func FromV1(ref string, img v1.Image) (*Image, Source, error) {
	if img == nil {
		return nil, nil, fmt.Errorf("%w: it is nil", ErrInvalidImage)
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return nil, nil, fmt.Errorf("manifest of %s: %w", ref, err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, nil, fmt.Errorf("config of %s: %w", ref, err)
	}
	image, err := NewImage(ref, manifest, config)
	if err != nil {
		return nil, nil, err
	}
	return image, v1Source{image, img}, nil
}

// v1Source reads the layers of a [v1.Image].
type v1Source struct {
	image *Image
	img   v1.Image
}

// IgnoresRange implements [RangeIgnorer].
func (v1Source) IgnoresRange() bool { return true }

// ReadRange implements [Source]. What is before offset is read and dropped.
func (s v1Source) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	d, ok := s.image.layer(digest)
	if !ok {
		return nil, Permanent(fmt.Errorf("layer %s is not part of %s", digest, s.image.reference))
	}
	if err := checkRange(digest, d.Size, offset, length); err != nil {
		return nil, err
	}
	layer, err := s.img.LayerByDigest(digest)
	if err != nil {
		return nil, err
	}
	blob, err := layer.Compressed()
	if err != nil {
		return nil, err
	}
	// Both ctx and the caller close it, and not every layer may be closed twice.
	end := sync.OnceValue(blob.Close)
	r := &v1Reader{ctx: ctx, blob: blob, layer: digest, left: offset + length, end: end}
	r.stop = context.AfterFunc(ctx, func() { _ = end() })
	if _, err := io.CopyN(io.Discard, r, offset); err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

type v1Reader struct {
	ctx   context.Context
	blob  io.Reader
	layer v1.Hash
	left  int64
	end   func() error
	stop  func() bool
}

func (r *v1Reader) Read(p []byte) (int, error) {
	switch {
	case r.left == 0:
		return 0, io.EOF
	case r.ctx.Err() != nil:
		return 0, wait.Err(r.ctx)
	}
	n, err := r.blob.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	switch {
	case err == nil || err == io.EOF && r.left == 0:
		return n, nil
	case r.ctx.Err() != nil: // which closed it
		err = wait.Err(r.ctx)
	case err == io.EOF:
		err = fmt.Errorf("layer %s: %w: it ends %d bytes too early", r.layer, ErrSize, r.left)
	}
	return n, err
}

func (r *v1Reader) Close() error {
	r.stop()
	return r.end()
}

// V1 returns the tarball as one of go-containerregistry's images, with the digests that
// it has. Its layers are read from the tarball and verified as they are read, as by
// [Archive.Open]. It is valid until the tarball is closed.
func (t *Tarball) V1() (v1.Image, error) {
	if t == nil || t.r == nil {
		return nil, errNotOpen
	}
	return partial.CompressedToImage(v1Core{t})
}

// v1Core is what go-containerregistry makes an image of.
type v1Core struct{ t *Tarball }

func (c v1Core) RawManifest() ([]byte, error)        { return c.t.Image.Manifest(), nil }
func (c v1Core) RawConfigFile() ([]byte, error)      { return c.t.Image.Config(), nil }
func (c v1Core) MediaType() (types.MediaType, error) { return c.t.Image.MediaType(), nil }
func (c v1Core) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	d, ok := c.t.Image.layer(h)
	if !ok {
		return nil, fmt.Errorf("layer %s is not part of %s", h, c.t.name)
	}
	return v1Layer{c.t, d}, nil
}

type v1Layer struct {
	t *Tarball
	d v1.Descriptor
}

func (l v1Layer) Digest() (v1.Hash, error)            { return l.d.Digest, nil }
func (l v1Layer) Size() (int64, error)                { return l.d.Size, nil }
func (l v1Layer) MediaType() (types.MediaType, error) { return l.d.MediaType, nil }
func (l v1Layer) Compressed() (io.ReadCloser, error) {
	segment, _ := l.t.Layout.Layer(l.d.Digest)
	return l.t.readSegments(context.Background(), []Segment{segment}, true), nil
}
