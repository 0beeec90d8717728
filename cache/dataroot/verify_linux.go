package dataroot

import (
	"context"
	"errors"
	"fmt"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

func (d *Dir) verify(ctx context.Context, name string, e Engine, tarballs []*tarball.Tarball) error {
	if err := canMount(); err != nil {
		return err
	}
	src, t, err := d.open(name)
	if err != nil {
		return err
	}
	defer src.Close()
	sys.LockShared(src)
	if err := t.Record.isFor(ctx, e); err != nil {
		return err
	}
	if len(tarballs) > 0 && !t.Record.hasAll(tarballs) {
		return fmt.Errorf("%w: the tarballs have other images than its record", ErrWrong)
	}
	if err := checkFileSystem(ctx, src); err != nil {
		return fmt.Errorf("%w: %w", ErrWrong, err)
	}
	f, err := createNameless(d.options.Below)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, err := copyTemplate(ctx, f, src, t.Record.Size, false); err != nil {
		return err
	}
	err = onDataRoot(ctx, e, f, t.Record.Size, d.options.Limit, t.Record.check, func(root string) error {
		inside, err := readRecordIn(root)
		if err != nil || !inside.isSame(t.Record) {
			return fmt.Errorf("%w: the record in it, %s, is another one", ErrWrong, RecordName)
		}
		return nil
	})
	if errors.Is(err, ErrUnsupported) || errors.Is(err, ErrWrong) || err == nil {
		return err
	}
	return fmt.Errorf("the engine does not work on it: %w", err)
}
