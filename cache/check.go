package cache

import (
	"context"
	"fmt"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Check is the beginning of [Dir.Put] for those who know of an image no more than
// the digest of its manifest: it tells whether Put would do anything. The outcome
// is [Unchanged], [Superseded], or empty when Put is needed. ref is as for
// [NewImage]. It reads the first KiB of one file and writes nothing but the note
// that the tarball was used. With [PutOptions.Verify] or [PutOptions.Rewrite] it does
// not tell that a tarball is unchanged: that takes Put.
//
// The result is never nil. The errors: [ErrName]; [ErrImage] for the reference;
// those of the file system.
func (d *Dir) Check(name string, digest v1.Hash, ref string, o *PutOptions) (*Result, error) {
	if o == nil {
		o = &PutOptions{}
	}
	path, err := d.tarballPath(name)
	if err != nil {
		return &Result{}, err
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return &Result{}, fmt.Errorf("%w: reference %q: %w", ErrImage, ref, err)
	}
	own := *o
	own.Rewrite = o.Rewrite || o.Verify
	result := &Result{Path: path}
	_, err = d.isDone(context.Background(), name, path, &Image{reference: named.String(), digest: digest}, &own, result)
	return result, err
}
