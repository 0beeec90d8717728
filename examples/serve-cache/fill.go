package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/history"
	"github.com/dockercache/dockercache/cache/server"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/examples/internal/report"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/tagging"
)

// repositories are those that -fill allows: HOST/REPOSITORY, or HOST/* and HOST/PATH/* for
// all below.
type repositories []string

func (r *repositories) String() string { return strings.Join(*r, ",") }

// Set adds repositories, separated by commas.
func (r *repositories) Set(text string) error {
	for pattern := range strings.SplitSeq(text, ",") {
		base, isBelow := strings.CutSuffix(pattern, "/*")
		sample := base
		if isBelow {
			sample += "/x/y"
		}
		// One without a host is one of Docker Hub's, and "library" may be left out there:
		// then it is not what was written.
		if named, err := reference.ParseNormalizedNamed(sample); err != nil || named.Name() != sample {
			return fmt.Errorf("%q: want HOST/REPOSITORY, or HOST/* or HOST/PATH/* for all below, in full as docker.io/library/debian", pattern)
		}
		if isBelow {
			base += "/"
		}
		*r = append(*r, base)
	}
	return nil
}

// allow reports whether a repository, by its complete name, is one of them.
func (r repositories) allow(repository string) bool {
	return slices.ContainsFunc(r, func(base string) bool {
		return repository == base || strings.HasSuffix(base, "/") && strings.HasPrefix(repository, base)
	})
}

// upstream are the registries that images are fetched from. It implements
// [server.Upstream].
type upstream struct {
	allowed repositories
	client  *registry.Client
	dir     *cache.Dir
	scheme  tagging.Scheme
	history *report.History
}

// Allows implements [server.Upstream].
func (u *upstream) Allows(repository string) bool { return u.allowed.allow(repository) }

// Manifest implements [server.Upstream].
func (u *upstream) Manifest(ctx context.Context, ref string) ([]byte, types.MediaType, error) {
	raw, mediaType, err := u.client.Manifest(ctx, ref)
	return raw, mediaType, kindOf(err)
}

// Stock implements [server.Upstream].
func (u *upstream) Stock(ctx context.Context, image server.Missing, incoming func(*cache.Incoming)) (*cache.Result, error) {
	r := &report.Stocked{Image: image.Repository, Digest: image.Digest.String(), Start: time.Now()}
	if image.Tag != "" {
		r.Image += ":" + image.Tag
	}
	result, err := u.stock(ctx, image, incoming, &r.Timing)
	if result != nil {
		r.Put(result)
	}
	r.End(err, "")
	record := r.Record()
	record.Kind = history.Fill
	u.history.Append(ctx, record)
	return result, kindOf(err)
}

func (u *upstream) stock(ctx context.Context, image server.Missing, incoming func(*cache.Incoming), observer timing.Observer) (*cache.Result, error) {
	timing.Begin(observer, timing.Resolve)
	remote, ref, err := u.resolve(ctx, image)
	if err != nil {
		return nil, err
	}
	if ref, err = tagging.RepoTag(ref); err != nil {
		return nil, err
	}
	// The platform is part of the name, and only the config is sure to state it.
	manifest, config, err := remote.Content(ctx)
	if err != nil {
		return nil, err
	}
	img, err := tarball.NewImage(ref, manifest, config)
	if err != nil {
		return nil, err
	}
	p := img.Platform()
	names, err := u.scheme.Names(ref, "main", v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}.String())
	if err != nil {
		return nil, err
	}
	return u.dir.Stock(ctx, names.Tarball, ref, remote, &cache.PutOptions{Group: names.Group, Incoming: incoming, Observer: observer})
}

// resolve finds an image by the index that the client has got, so that it is stocked with
// it; else by its own digest. It returns the reference that it shall have, too.
func (u *upstream) resolve(ctx context.Context, image server.Missing) (*registry.Resolved, string, error) {
	name := image.Repository
	if image.Tag != "" {
		name += ":" + image.Tag
	}
	if image.Index != (v1.Hash{}) {
		ref := name + "@" + image.Index.String()
		remote, err := u.client.Resolve(ctx, image.Platform, ref)
		if err == nil && remote.Digest() == image.Digest || err != nil && !errors.Is(err, registry.ErrNoPlatform) {
			return remote, ref, err
		}
		// Several entries of the index are for the platform, and this is not the first.
		name = image.Repository
	}
	ref := name + "@" + image.Digest.String()
	remote, err := u.client.Resolve(ctx, image.Platform, ref)
	return remote, ref, err
}

// kindOf makes an error one of [server.ErrNotFound] where asking again is of no use.
func kindOf(err error) error {
	for _, kind := range []error{registry.ErrNotFound, registry.ErrDenied, registry.ErrUnsupported, registry.ErrInvalidReference, tarball.ErrInvalidImage, tagging.ErrReference, tagging.ErrScheme} {
		if errors.Is(err, kind) {
			return fmt.Errorf("%w: %w", server.ErrNotFound, err)
		}
	}
	return err
}
