package tarball

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/sys"
)

// An Archive is what an engine is sent of a tarball: all of it, or the same
// without layers that the engine already has. It is made while it is read;
// nothing is written. It is safe for concurrent use.
//
// No engine documents that it accepts an archive without layers it already has.
// Docker's classic store asks for a layer by its chain before it
// opens the file; containerd's stores look for blobs among all that they have.
type Archive struct {
	tarball *Tarball
	layout  *Layout
}

// Archive plans an archive of the tarball without the layers for which omit
// returns true; nil leaves nothing out, and gives the file byte by byte.
func (t *Tarball) Archive(omit func(layer v1.Hash) bool) (*Archive, error) {
	if t == nil || t.r == nil {
		return nil, errNotOpen
	}
	a := &Archive{tarball: t, layout: t.Layout}
	if omit != nil {
		var err error
		if a.layout, err = newLayout(t.Image, t.Provenance, omit); err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return a, nil
}

// ArchiveAs is [Tarball.Archive] with another reference, by which an engine will know the
// image. It needs a tag, as that of [NewImage].
func (t *Tarball) ArchiveAs(ref string, omit func(layer v1.Hash) bool) (*Archive, error) {
	if t == nil || t.r == nil {
		return nil, errNotOpen
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err == nil && reference.IsNameOnly(named) {
		err = errors.New("it has no tag")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: reference %q: %w", t.name, ErrInvalidImage, ref, err)
	}
	image := *t.Image
	image.reference = named.String()
	if omit == nil {
		omit = func(v1.Hash) bool { return false }
	}
	a := &Archive{tarball: t}
	if a.layout, err = newLayout(&image, t.Provenance, omit); err != nil {
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	return a, nil
}

// Size returns how many bytes the archive has.
func (a *Archive) Size() int64 { return a.layout.Size() }

// Layers returns the segments of the archive that are layers, in order.
func (a *Archive) Layers() []Segment { return a.layout.Layers() }

// Open returns a reader of the archive. It reads ahead, up to
// 8 MiB, and verifies each layer before it gives out the last of its bytes: one
// with another digest ends the reading with an error that wraps [ErrDigest],
// so what was read is never a complete archive with wrong bytes in it. The reader must
// be closed before the tarball is; it may be while it is read.
func (a *Archive) Open(ctx context.Context) io.ReadCloser { return a.open(ctx, true) }

// OpenUnverified is [Archive.Open] without the verification. It is for a consumer that
// verifies layers itself; call [Archive.Verify] beside it.
func (a *Archive) OpenUnverified(ctx context.Context) io.ReadCloser { return a.open(ctx, false) }

func (a *Archive) open(ctx context.Context, verify bool) io.ReadCloser {
	ctx, cancel := context.WithCancelCause(ctx)
	return newReadAhead(ctx, cancel, a.tarball.readSegments(ctx, a.layout.segments, verify))
}

// IsLocal reports whether the tarball is on a file system of this machine, not on one of
// a file server: reading it twice costs no network.
func (a *Archive) IsLocal() bool {
	f := sys.FileOf(a.tarball.r)
	return f != nil && !sys.IsNetwork(f)
}

// Verify reads the archive's layers and verifies each of them, with the errors of
// reading what [Archive.Open] returns.
func (a *Archive) Verify(ctx context.Context) error {
	r := a.tarball.readSegments(ctx, a.layout.Layers(), true)
	defer r.Close()
	_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, make([]byte, sys.HashBuffer))
	return err
}
