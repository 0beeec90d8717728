package cache

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// VerifyOptions of [Dir.Verify]. The zero value of each field works.
type VerifyOptions struct {
	// Parallel is how many tarballs are read at a time. Default: as many as there
	// are processors for Go, for sha256 takes more time than a fast disk.
	Parallel int
	// Progress, when not nil, is called at the beginning and whenever something
	// was read; Done and Total are bytes of tarballs. It is called concurrently and
	// must be quick. What was not read, since a file is no tarball or has changed,
	// is never done.
	Progress func(Progress)
}

// Verified is what [Dir.Verify] found out about one tarball.
type Verified struct {
	// Name is the tarball's.
	Name string
	// Tarball is what its beginning says that it holds; nil if that cannot be read.
	Tarball *Tarball
	// Damaged are the layers with wrong bytes, in the order of the file.
	Damaged []v1.Hash
	// Err is nil when every byte is right. Otherwise it is that of [ReadTarball] or
	// [Tarball.Verify], or [ErrName].
	Err error
}

// Verify reads whole tarballs, those called names or all of the directory if
// there are none, and proves every byte, as [Tarball.Verify] does. It returns what
// it found in the order of the names, and no error for damage: that is in the
// results. The error is the directory's, or the reason for which ctx ended.
func (d *Dir) Verify(ctx context.Context, names []string, o *VerifyOptions) ([]Verified, error) {
	if o == nil {
		o = &VerifyOptions{}
	}
	parallel := o.Parallel
	if parallel < 1 {
		parallel = runtime.GOMAXPROCS(0)
	}
	if len(names) == 0 {
		var err error
		if names, err = tarballNames(d.path); err != nil {
			return nil, fmt.Errorf("verify tarballs: %w", err)
		}
	}
	results := make([]Verified, len(names))
	var total, done atomic.Int64
	for i, name := range names {
		results[i] = d.toVerify(name)
		if t := results[i].Tarball; t != nil {
			total.Add(t.Layout.Size())
		}
	}
	tell := func(n int64) {
		if now := done.Add(n); o.Progress != nil {
			o.Progress(Progress{now, total.Load()})
		}
	}
	tell(0)
	var group errgroup.Group
	group.SetLimit(parallel)
	for i := range results {
		group.Go(func() error {
			r := &results[i]
			if ctx.Err() != nil || r.Tarball == nil {
				return nil
			}
			r.Err = r.Tarball.verify(ctx, tell)
			if damage := (*DamageError)(nil); errors.As(r.Err, &damage) {
				r.Damaged = damage.Layers
			}
			return nil
		})
	}
	_ = group.Wait() // no function returns an error
	if ctx.Err() != nil {
		return nil, fmt.Errorf("verify tarballs in %s: %w", d.path, context.Cause(ctx))
	}
	return results, nil
}

// toVerify reads the beginning of a tarball, and not of what a link leads to.
func (d *Dir) toVerify(name string) Verified {
	v := Verified{Name: name}
	var path string
	if path, v.Err = d.tarballPath(name); v.Err != nil {
		return v
	}
	v.Tarball, v.Err = readTarball(path, unix.O_NOFOLLOW)
	if errors.Is(v.Err, unix.ELOOP) {
		v.Err = fmt.Errorf("%s: %w: a symbolic link", filepath.Join(d.path, name), ErrNotTarball)
	}
	return v
}
