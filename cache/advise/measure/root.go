package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/advise"
	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
)

// rootSize is that of the file system of a sample, which is sparse.
const rootSize = 1 << 30

// Root measures what it takes to give an engine a data root: in a directory of its own below a
// directory of tarballs it builds a template with an image of one small file, and mounts clones of it. It
// needs what package dataroot needs: else the error wraps [dataroot.ErrUnsupported]. Making the file
// system counts as starting the engine, some 50 ms.
func Root(ctx context.Context, path string, e dataroot.Engine) (_ *advise.Root, _ []Sample, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("measure data roots in %s: %w", path, err)
		}
	}()
	record, err := e.Record(ctx)
	if err != nil {
		return nil, nil, err
	}
	below, err := os.MkdirTemp(path, "."+sampleBase+"-")
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(below)) }()
	c := &content{plain: true}
	img, src, err := c.image(ctx, sampleRepository+":root", v1.Platform{OS: "linux", Architecture: runtime.GOARCH})
	if err != nil {
		return nil, nil, err
	}
	file := filepath.Join(below, "sample.tar")
	if err := cache.WriteTarball(ctx, file, img, src, nil); err != nil {
		return nil, nil, err
	}
	t, err := tarball.Open(file)
	if err != nil {
		return nil, nil, err
	}
	defer t.Close()
	dir, err := dataroot.Open(below, &dataroot.Options{Size: rootSize})
	if err != nil {
		return nil, nil, err
	}
	seen := &span{}
	begun := time.Now()
	result, err := dir.Build(ctx, "sample", e, []*tarball.Tarball{t}, &dataroot.BuildOptions{Load: &loader.Options{Observer: seen, LockDir: below}})
	if err != nil {
		return nil, nil, err
	}
	ended := time.Now()
	if seen.first.IsZero() {
		return nil, nil, errors.New("the engine has loaded nothing into the template")
	}
	at := filepath.Join(below, "clone")
	if err := os.Mkdir(at, 0o700); err != nil {
		return nil, nil, err
	}
	var mounts []time.Duration
	for range 3 {
		began := time.Now()
		if _, err := dir.Clone(ctx, result.Template.Name, at, nil); err != nil {
			return nil, nil, err
		}
		mounts = append(mounts, time.Since(began))
		if err := dataroot.Discard(context.WithoutCancel(ctx), at); err != nil {
			return nil, nil, err
		}
	}
	r := &advise.Root{Mount: median(mounts), Start: seen.first.Sub(begun).Seconds(), Close: ended.Sub(seen.last).Seconds()}
	return r, []Sample{
		{What: fmt.Sprintf("%s %s started on a new data root", record.Kind, record.Version), Took: seen.first.Sub(begun)},
		{What: "stopped, its file system checked and published", Took: ended.Sub(seen.last)},
		{What: times(len(mounts), "clone") + " mounted", Took: sum(mounts)},
	}, nil
}

// A span is an observer of when a load began and ended.
type span struct{ first, last time.Time }

// Begin implements [timing.Observer].
func (s *span) Begin(_ timing.Phase, at time.Time) {
	if s.first.IsZero() {
		s.first = at
	}
	s.last = at
}
