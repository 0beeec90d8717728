package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/batch"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// VerifyOptions of [Dir.Verify]. The zero value of each field works.
type VerifyOptions struct {
	// Parallel is how many tarballs are read at a time. Default: as many as there
	// are processors for Go, for sha256 takes more time than a fast disk.
	Parallel int
	// Progress, when not nil, is called at the beginning and whenever something
	// was read, by one goroutine at a time; Done and Total are bytes of tarballs. What
	// was not read, since a file is no tarball, is never done.
	Progress func(tarball.Progress)
}

// A VerifyResult is what [Dir.Verify] found out about one tarball.
type VerifyResult struct {
	// Name is the tarball's.
	Name string
	// Info is what its beginning says that it holds; nil if that cannot be read.
	Info *tarball.Info
	// Damaged are the layers with wrong bytes, in the order of the file.
	Damaged []v1.Hash
	// Err is nil when every byte is right. Otherwise it is that of [Dir.Get], such as
	// [fs.ErrNotExist] for a name that is not there, or of [tarball.Tarball.Verify].
	Err error
	// Version is the ETag of the object that was verified, where the tarball is in a bucket; ""
	// in a directory. Repair replaces that one.
	Version string

	file os.FileInfo // which Repair replaces, and no other
}

// Verify reads whole tarballs, those called names or all of the directory if
// there are none, and verifies every byte, as [tarball.Tarball.Verify] does. It returns what
// it found in the order of the names, and no error for damage: that is in the
// results. That all of a tarball is right is recorded, and counts for [Options.TrustFor]; damage
// ends what was recorded. No link is followed. The error is the directory's, or the reason for which
// ctx ended.
func (d *Dir) Verify(ctx context.Context, names []string, o *VerifyOptions) ([]VerifyResult, error) {
	if o == nil {
		o = &VerifyOptions{}
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	if len(names) == 0 {
		var err error
		if names, err = tarballNames(d.path); err != nil {
			return nil, fmt.Errorf("verify tarballs: %w", err)
		}
	}
	results := make([]VerifyResult, len(names))
	total := int64(0)
	for i, name := range names {
		results[i] = d.examine(ctx, name, nil)
		if info := results[i].Info; info != nil {
			total += info.Layout.Size()
		}
	}
	err := batch.Run(ctx, len(results), o.Parallel, total, o.Progress, func(i int, report func(n int64)) {
		if r := &results[i]; r.Info != nil {
			*r = d.examine(ctx, r.Name, report)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("verify tarballs in %s: %w", d.path, err)
	}
	return results, nil
}

// examine opens a tarball, and verifies all of it if there is a progress function.
func (d *Dir) examine(ctx context.Context, name string, progress func(n int64)) VerifyResult {
	r := VerifyResult{Name: name}
	path, err := d.tarballPath(name)
	if err != nil {
		r.Err = err
		return r
	}
	t, file, err := openTarball(path, sys.NoFollow)
	if errors.Is(err, syscall.ELOOP) {
		err = fmt.Errorf("%s: %w: a symbolic link", filepath.Join(d.path, name), tarball.ErrNotTarball)
	}
	if err != nil {
		r.Err = err
		return r
	}
	defer t.Close()
	r.Info, r.file = &t.Info, file
	if progress == nil {
		return r
	}
	r.Err = d.verifyAll(ctx, name, t, progress)
	if damage := (*tarball.DamageError)(nil); errors.As(r.Err, &damage) {
		r.Damaged = damage.Layers
	}
	return r
}

// RepairOptions of [Dir.Repair]. The zero value of each field works.
type RepairOptions struct {
	// Progress is as in [PutOptions].
	Progress func(tarball.Progress)
	// MinRate is as in [PutOptions].
	MinRate int64
}

// Repair writes a tarball of the directory again, since [Dir.Verify] found damage in
// it: the same bytes as it had when it was first published, under the same name.
// Layers that are intact, there or in another tarball, are taken from where they
// are; the others come from src, which must be of the same image. Until the whole is
// verified the damaged file stays, and it stays when anything fails.
//
// The outcome is [Stocked], and the errors are those of [Dir.Put], and
// [ErrReplaced] when the file that was verified is no longer the one that is
// there: then whatever another writer has published stays. A tarball of which the
// beginning cannot be read, so that the result has no Info, cannot be repaired: Put or
// Stock writes it again. Time, mode, run and group stay as they were.
//
// [tarball.Info.Sources] says where src can be resolved.
func (d *Dir) Repair(ctx context.Context, damaged *VerifyResult, src tarball.Source, o *RepairOptions) (*Result, error) {
	if damaged == nil || damaged.Name == "" || src == nil {
		return &Result{}, errors.New("repair: the result of Verify for a tarball, and a source, are required")
	}
	if damaged.file == nil && damaged.Info != nil {
		return &Result{}, fmt.Errorf("repair %s: a result of Dir.Verify is required, which knows the file that is damaged", damaged.Name)
	}
	if damaged.Info == nil && errors.Is(damaged.Err, fs.ErrNotExist) {
		return &Result{}, fmt.Errorf("repair %s: %w", damaged.Name, damaged.Err)
	}
	if damaged.Info == nil {
		return &Result{}, fmt.Errorf("repair %s: its beginning cannot be read, so that it is not known what was in it: stock it again", damaged.Name)
	}
	if o == nil {
		o = &RepairOptions{}
	}
	p, err := d.newPut(ctx, damaged.Name, &PutOptions{Provenance: damaged.Info.Provenance, Progress: o.Progress, MinRate: o.MinRate, Rewrite: true})
	if err != nil {
		return &Result{}, err
	}
	p.repairs = damaged.file
	return p.result, p.run(ctx, damaged.Info.Image, src)
}
