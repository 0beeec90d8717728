package cache

import (
	"context"
	"path/filepath"
)

// Repair writes a tarball of the directory anew, for [Dir.Verify] found damage in
// it: the same bytes as it had when it was first published, under the same name.
// Layers that are intact, there or in another tarball, are taken from where they
// are; the others come from src, which must be of t's image. progress is as in
// [FillOptions]; nil is none. Until the whole is proven the damaged file stays,
// and it stays when anything fails.
//
// The outcome is [Stocked], and the errors are those of [Dir.Put], and
// [ErrReplaced] when the file that t was read from is no longer the one that is
// there: then whatever another writer has published stays.
func (d *Dir) Repair(ctx context.Context, t *Tarball, src BlobSource, progress func(Progress)) (*Result, error) {
	return d.Put(ctx, filepath.Base(t.Path), t.Image, src, &PutOptions{
		Provenance: t.Provenance, Progress: progress, Rewrite: true, repairs: t,
	})
}
