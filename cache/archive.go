package cache

import (
	"context"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// An Archive is what an engine is sent of a tarball: all of it, or the same
// without layers that the engine has already. It is made while it is read;
// nothing is written.
//
// That engines load an archive which lacks layers they have is documented by
// none of them. Docker's classic store asks for a layer by its chain before it
// opens the file; containerd's stores look for blobs among all that they have.
type Archive struct {
	tarball *Tarball
	layout  *Layout
}

// Archive plans an archive of the tarball without the layers for which omit
// returns true; nil leaves nothing out, and gives the file byte by byte.
func (t *Tarball) Archive(omit func(layer v1.Hash) bool) (*Archive, error) {
	a := &Archive{tarball: t, layout: t.Layout}
	if omit != nil {
		var err error
		if a.layout, err = newLayout(t.Image, t.Provenance, omit); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Path, err)
		}
	}
	return a, nil
}

// Size returns how many bytes the archive has.
func (a *Archive) Size() int64 { return a.layout.Size() }

// Open returns a reader of the archive. It reads ahead of whoever reads it, up to
// 8 MiB, and proves each layer before it gives out the last of its bytes: one
// with another digest ends the reading with an error that wraps [ErrBlobDigest],
// so what was read is never a complete archive with wrong bytes in it. What
// happens when the tarball is replaced meanwhile is as with [Tarball.ReadRange].
func (a *Archive) Open(ctx context.Context) io.ReadCloser { return a.open(ctx, true) }

// OpenUnproven is [Archive.Open] without the proof. It is for whoever gives the archive
// to one that proves layers itself, and calls [Archive.Prove] when there is time.
func (a *Archive) OpenUnproven(ctx context.Context) io.ReadCloser { return a.open(ctx, false) }

func (a *Archive) open(ctx context.Context, verify bool) io.ReadCloser {
	ctx, cancel := context.WithCancelCause(ctx)
	return newReadAhead(ctx, cancel, &tarballReader{ctx: ctx, tarball: a.tarball, segments: a.layout.segments, verify: verify})
}

// IsLocal tells whether the tarball is on a file system of this machine, not on one of
// a file server.
func (a *Archive) IsLocal() bool { return !isNetworkAt(a.tarball.Path) }

// Prove reads the archive's layers and proves each of them, with the errors of
// reading what [Archive.Open] returns.
func (a *Archive) Prove(ctx context.Context) error {
	r := &tarballReader{ctx: ctx, tarball: a.tarball, segments: a.layout.layers(), verify: true}
	defer r.Close()
	_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, make([]byte, hashBuffer))
	return err
}

// verifyingReader gives out the last bytes of a layer only when all of them have
// the layer's digest.
type verifyingReader struct {
	io.ReadCloser
	path  string
	layer v1.Hash
	left  int64
	sum   hash.Hash
}

func (r *verifyingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	_, _ = r.sum.Write(p[:n]) // a hash never fails
	if r.left -= int64(n); r.left == 0 && n > 0 {
		if got := fmt.Sprintf("%x", r.sum.Sum(nil)); got != r.layer.Hex {
			return 0, fmt.Errorf("%s: layer %s: %w: its bytes have the digest sha256:%s", r.path, r.layer, ErrBlobDigest, got)
		}
	}
	return n, err
}
