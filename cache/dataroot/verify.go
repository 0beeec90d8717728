package dataroot

import (
	"context"
	"errors"
	"fmt"

	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
)

// Verify checks a template: its file system, and by the engine's own account, which runs on a
// clone of it, that each image of the record is there under its reference, is the one that
// was loaded, and can be used. tarballs, if any are given, are what it should have been built
// from. The error wraps [ErrWrong] if it does not hold what it should, [ErrNoTemplate] if the
// engine has another version.
//
// The bytes of layers are not compared: no engine keeps what their digests are of.
func (d *Dir) Verify(ctx context.Context, name string, e Engine, tarballs ...*tarball.Tarball) error {
	if err := d.verify(ctx, name, e, tarballs); err != nil {
		return fmt.Errorf("dataroot: verify %s: %w", name, err)
	}
	return nil
}

// check checks by an engine's own account what a record says.
func (r *Record) check(ctx context.Context, engine loader.Engine) error {
	var all []error
	for _, i := range r.Images {
		id, state, err := engine.Find(ctx, i.Reference)
		switch {
		case err != nil:
		case state == loader.Incomplete:
			err = fmt.Errorf("%w: the engine lacks parts of it", ErrWrong)
		case id != i.ID:
			err = fmt.Errorf("%w: the engine has %v, the record %v", ErrWrong, id, i.ID)
		default:
			if err = engine.Verify(ctx, id); err != nil {
				err = fmt.Errorf("%w: %w", ErrWrong, err)
			}
		}
		if err != nil {
			all = append(all, fmt.Errorf("%s: %w", i.Reference, err))
		}
	}
	return errors.Join(all...)
}
