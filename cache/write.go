package cache

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dockercache/dockercache/cache/atomicfile"
	"github.com/dockercache/dockercache/cache/internal/fetch"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// WriteOptions of [WriteTarball]. The zero value of each field works.
type WriteOptions struct {
	// Provenance is recorded in the tarball.
	Provenance tarball.Provenance
	// Connections is as in [Options].
	Connections int
	// Mode is the mode of the file before the umask. Default: 0666.
	Mode fs.FileMode
	// Progress, when not nil, is called at the beginning and whenever bytes of
	// layers were written.
	Progress func(tarball.Progress)
}

// WriteTarball writes the tarball of img to path, atomically: at every moment path is
// what it was before or the whole new tarball, with every layer verified. It needs no
// [Dir]: path may be anywhere, and have any name. It takes no lock, shares no layers and
// does not resume: that is what [Dir.Put] is for. A symbolic link at path is replaced by
// the file. Failing ranges are retried as by Put; a source that ignores ctx delays the
// return.
//
// The errors are [*SpaceError]; those of Put that concern the source and the file
// system; those of [atomicfile.WriteFile].
func WriteTarball(ctx context.Context, path string, img *tarball.Image, src tarball.Source, o *WriteOptions) error {
	if o == nil {
		o = &WriteOptions{}
	}
	if img == nil || src == nil {
		return fmt.Errorf("write %s: an image and a source are required", path)
	}
	layout, err := tarball.NewLayout(img, o.Provenance)
	if err != nil {
		return fmt.Errorf("plan %s: %w", path, err)
	}
	err = atomicfile.WriteFile(path, cmp.Or(o.Mode, 0o666), func(f *os.File) error {
		if err := checkFree(f, filepath.Dir(path), layout.Size()); err != nil {
			return err
		}
		if err := sys.Reserve(f, []sys.Interval{{From: 0, To: layout.Size()}}); err != nil {
			return err
		}
		_, err := fetch.New(o.Connections).Fetch(ctx, fetch.Job{Sink: fetch.File{File: f}, Layout: layout, Source: src, Progress: o.Progress})
		if err == nil {
			err = wait.Err(ctx) // the caller gave up: do not publish
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
