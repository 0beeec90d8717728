package main

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/internal/command"
	"github.com/dockercache/dockercache/internal/progress"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/tagging"
)

// stocker holds what all images of a run share.
type stocker struct {
	*options
	client *registry.Client
	dir    *cache.Dir
}

// stockAll stocks every image, some at a time, and reports each. One that fails
// does not stop the others.
func stockAll(ctx context.Context, o *options, report *report) int {
	log := report.log(o.verbose)
	keychain := o.keychain
	if keychain == nil {
		var err error
		if keychain, err = newKeychain(o, log, report.mask); err != nil {
			report.failed(err)
			return command.Usage
		}
	}
	s := &stocker{options: o, client: registry.New(&registry.Options{
		Keychain:         keychain,
		PlainHTTP:        o.plainHTTP,
		MirrorsMustAgree: o.mustAgree,
		AllSources:       o.allSources,
		Logger:           log,
		Secret:           report.mask,
	})}
	var dirErr error
	if s.dir, dirErr = cache.OpenDir(o.dir, &cache.DirOptions{
		Engine: cache.NewEngine(&cache.EngineOptions{Connections: o.connections}),
		Quota:  int64(o.quota), Mode: fs.FileMode(o.mode), DirMode: fs.FileMode(o.dirMode), Group: o.group, Grace: o.grace,
		Logger: log,
	}); dirErr != nil {
		report.failed(dirErr)
		report.said = true
	}
	taken := s.tarballs()

	var group errgroup.Group
	group.SetLimit(o.jobs)
	for i, image := range o.images {
		group.Go(func() error {
			start := time.Now()
			r := result{Image: image, Outcome: failed, start: start}
			err := dirErr
			if err == nil {
				err = s.stock(ctx, i, taken, &r, report)
			}
			r.Seconds = time.Since(start).Seconds()
			report.result(r, err)
			return nil
		})
	}
	_ = group.Wait() // no function returns an error
	switch {
	case ctx.Err() != nil:
		return command.Interrupted
	case report.failures > 0 || report.unsaid != nil:
		return command.Failed
	}
	return command.OK
}

// tarballs tells which of the images, by index, would write which tarball.
func (s *stocker) tarballs() map[string][]int {
	taken := map[string][]int{}
	for i, image := range s.images {
		if name, err := tagging.Tarball(image, s.branch, s.rules); err == nil {
			taken[name] = append(taken[name], i)
		}
	}
	return taken
}

// stock does the whole job for the i-th image: names, resolve, put.
func (s *stocker) stock(ctx context.Context, i int, taken map[string][]int, r *result, display progress.Display) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	image := s.images[i]
	if s.request == nil && len(s.build.Allow) > 0 { // else it was checked with the build
		gate := artifacts.Policy{Allow: s.build.Allow}
		if err := gate.CheckReference(image); err != nil {
			return err
		}
	}
	tarball, err := tagging.Tarball(image, s.branch, s.rules)
	if err != nil {
		return err
	}
	// Neither is stocked: which of the two should be is not for us to say.
	for _, other := range taken[tarball] {
		if other != i {
			return fmt.Errorf("argument %d would be written to %s, and so would argument %d, %s: leave one of them out", i+1, tarball, other+1, s.images[other])
		}
	}
	repoTag, err := tagging.RepoTag(image)
	if err != nil {
		return err
	}
	sources := make([]string, 0, len(s.mirrors)+1)
	for _, m := range s.mirrors {
		mirror, err := tagging.Mirror(image, m)
		if err != nil {
			return err
		}
		sources = append(sources, mirror)
	}

	found, err := s.client.Resolve(ctx, s.platform, append(sources, image)...)
	if err != nil {
		return err
	}
	options := &cache.PutOptions{
		Provenance: cache.Provenance{Source: found.Source(), Branch: s.branch, Run: s.run},
		Force:      s.force,
		TakeOver:   s.takeOver,
		Verify:     s.verify,
	}
	r.Source, r.Digest = found.Source(), found.Digest().String()
	done, err := s.dir.Check(tarball, found.Digest(), repoTag, options)
	if err != nil {
		return fmt.Errorf("stock %s from %s: %w", tarball, found.Source(), err)
	}
	if done.Outcome != "" {
		r.Tarball, r.BytesTotal, r.Outcome = done.Path, done.Total, string(done.Outcome)
		return nil
	}
	remote, err := found.Image(ctx)
	if err != nil {
		return err
	}
	r.Source, r.Digest = remote.Source(), remote.Digest().String()
	local, err := cache.NewImage(repoTag, remote.Manifest(), remote.Config())
	if err != nil {
		return fmt.Errorf("%s: %w", remote.Source(), err)
	}
	tell, end := display.Image(tarball)
	defer end()
	options.Provenance.Source, options.Progress = remote.Source(), tell
	put, err := s.dir.Put(ctx, tarball, local, remote, options)
	r.Tarball, r.BytesTotal, r.BytesDownloaded, r.BytesReused = put.Path, put.Total, put.Downloaded, put.Reused
	r.BytesCloned, r.BytesCopied = put.Cloned, put.Copied
	if err != nil {
		return fmt.Errorf("stock %s from %s: %w", tarball, remote.Source(), err)
	}
	r.Outcome = string(put.Outcome)
	return nil
}
