package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/internal/command"
	"github.com/dockercache/dockercache/tagging"
)

// errMissing is wrapped when there is no tarball of an image.
var errMissing = errors.New("no tarball")

// loadAll loads one image after the other: an engine unpacks on one processor, and
// writes to one disk. It returns the exit code.
func loadAll(ctx context.Context, o *options, report *report) int {
	l := &images{options: o, report: report, log: report.log(o.verbose)}
	for _, image := range o.images {
		if ctx.Err() != nil {
			break
		}
		start := time.Now()
		r := result{Image: image}
		err := l.load(ctx, image, &r)
		r.Seconds = time.Since(start).Seconds()
		report.result(r, err)
	}
	switch {
	case ctx.Err() != nil:
		return command.Interrupted
	case report.failures > 0 || report.unsaid != nil:
		return command.Failed
	case report.missing > 0:
		return noTarball
	}
	return command.OK
}

type images struct {
	*options
	report *report
	log    *slog.Logger
	dir    *cache.Dir
	engine loader.Engine
}

func (l *images) load(ctx context.Context, image string, r *result) error {
	tarball, err := l.find(image, r)
	if err != nil {
		return err
	}
	if l.engine == nil {
		if l.engine, err = loader.Open(ctx, l.host); err != nil {
			return err
		}
	}
	tell, end := l.report.Image(filepath.Base(tarball.Path))
	defer end()
	done, err := loader.Load(ctx, l.engine, tarball, &loader.Options{Whole: l.whole, NoPull: l.noPull, LockDir: l.lockDir, Progress: tell, Logger: l.log})
	r.Outcome, r.BytesStreamed, r.BytesTotal = string(done.Outcome), done.Streamed, done.Total
	if _, gone := os.Stat(tarball.Path); err != nil && errors.Is(gone, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %s was removed meanwhile: %w", errMissing, filepath.Base(tarball.Path), err)
	}
	if err == nil {
		l.dir.MarkUsed(tarball)
	}
	return err
}

// find returns the tarball of an image. That of another image, such as one of an
// older recipe, is no help: the job asks the engine for this one by its name.
func (l *images) find(image string, r *result) (*cache.Tarball, error) {
	name, err := tagging.Tarball(image, l.branch, l.rules)
	if err != nil {
		return nil, err
	}
	want, err := tagging.RepoTag(image)
	if err != nil {
		return nil, err
	}
	if l.dir == nil {
		if l.dir, err = cache.OpenDir(l.options.dir, nil); err != nil {
			return nil, err
		}
	}
	tarball, err := l.dir.Lookup(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is not in %s", errMissing, name, l.dir.Path())
	}
	if err != nil {
		return nil, err
	}
	r.Tarball, r.BytesTotal = tarball.Path, tarball.Layout.Size()
	if have := tarball.Image.Reference(); have != want {
		return nil, fmt.Errorf("%w: %s holds %s", errMissing, name, have)
	}
	if _, digest, ok := strings.Cut(image, "@"); ok && digest != tarball.Image.Digest().String() {
		return nil, fmt.Errorf("%w: %s holds the manifest %s", errMissing, name, tarball.Image.Digest())
	}
	return tarball, nil
}
