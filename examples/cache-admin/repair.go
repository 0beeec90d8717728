package main

import (
	stdbytes "bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"syscall"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/artifacts/workflow"
	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/internal/command"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/awsauth"
)

// isDamage tells whether a tarball is known, but wrong.
func isDamage(err error) bool { return errors.As(err, new(*cache.DamageError)) }

// repairer fetches images again.
type repairer struct{ client *registry.Client }

func newRepairer(o *options, out *output) (*repairer, error) {
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(out.stderr, &slog.HandlerOptions{Level: level}))
	options := &awsauth.Options{RoleARN: o.roleARN, Region: o.region, Logger: log}
	if os.Getenv("GITHUB_ACTIONS") == "true" && !command.IsFile(out.raw) { // the runner hides what it is told
		commands := workflow.NewCommands(out.raw)
		options.Secret = func(secret string) { _, _ = commands.Mask(secret) }
	}
	aws, err := awsauth.NewKeychain(options)
	if err != nil {
		return nil, err
	}
	return &repairer{registry.New(&registry.Options{
		Keychain:  append(registry.Chain{{Name: "AWS", Keychain: aws}}, registry.DefaultChain()...),
		PlainHTTP: o.plainHTTP, Logger: log, Secret: options.Secret,
	})}, nil
}

// repair fetches the damaged layers of a tarball, by its digest, from where it
// came from first, and from its own registry.
func (r *repairer) repair(ctx context.Context, dir *cache.Dir, t *cache.Tarball) (*cache.Result, error) {
	sources, err := sourcesOf(t)
	if err != nil {
		return nil, err
	}
	// By the digest there is no choice; a platform of its own spares a warning.
	platform := registry.DefaultPlatform()
	if c, err := v1.ParseConfigFile(stdbytes.NewReader(t.Image.Config())); err == nil && c.Platform() != nil {
		platform = *c.Platform()
	}
	image, err := r.client.Image(ctx, platform, sources...)
	if err != nil {
		return nil, err
	}
	if image.Digest() != t.Image.Digest() {
		return nil, fmt.Errorf("%s is an index now, with %s: not the image that the tarball has", image.Source(), image.Digest())
	}
	return dir.Repair(ctx, t, image, nil)
}

// sourcesOf returns where the image of a tarball may be, as REPOSITORY@DIGEST.
func sourcesOf(t *cache.Tarball) (sources []string, err error) {
	for _, ref := range []string{t.Provenance.Source, t.Image.Reference()} {
		if ref == "" {
			continue
		}
		named, err := reference.ParseNormalizedNamed(ref)
		if err != nil {
			if ref == t.Provenance.Source {
				continue // a note, which no digest proves
			}
			return nil, fmt.Errorf("reference %q: %w", ref, err)
		}
		source := reference.TrimNamed(named).Name() + "@" + t.Image.Digest().String()
		if len(sources) == 0 || sources[0] != source {
			sources = append(sources, source)
		}
	}
	return sources, nil
}

// advice says what a person can do about an error, where that is known.
func advice(err error) string {
	var tips []string
	for _, a := range []struct {
		kind error
		tip  string
	}{
		{registry.ErrNotFound, "the registry does not have the image any more: remove the tarball, or stock a newer one with docker-cache"},
		{registry.ErrDenied, "log in to the registry (docker login), or check what the credential may read"},
		{registry.ErrUnreachable, "check the registry's name and the network, or try again later"},
		{cache.ErrReplaced, "another has stocked it meanwhile: verify again"},
		{cache.ErrName, "give the name of a file in the directory, without a path"},
		{fs.ErrPermission, "run it as the user that the directory belongs to"},
		{syscall.ENOSPC, "make room in the directory"},
	} {
		if errors.Is(err, a.kind) {
			tips = append(tips, a.tip)
		}
	}
	if len(tips) == 0 && (isDamage(err) || errors.Is(err, cache.ErrNotTarball)) {
		tips = append(tips, "stock it again with docker-cache, or remove it; what is damaged in a tarball can be fetched with \"verify -repair\"")
	}
	if len(tips) == 0 {
		return ""
	}
	return "\n  What to do: " + strings.Join(tips, "; ")
}
