package main

import (
	"context"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// addNames fills a registry with images of several repositories, some with the same
// tags, and with team/multi, an index for two platforms.
func addNames(own *registrytest.Server) error {
	index := v1.ImageIndex(empty.Index)
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		image, err := random.Image(1000, 1)
		if err != nil {
			return err
		}
		p, err := registry.ParsePlatform(platform)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &p}})
	}
	if _, err := own.PushIndex("team/multi:t-1234567", index); err != nil {
		return err
	}
	for _, path := range []string{
		"team/debian:bookworm-slim", "team/debian:bookworm-2", "team/debian:bookworm-abc123", "team/tool:bookworm-abc123",
		"team/hashed:jammy-2f5ec0d8a6f1b4c3d7e9a0b1c2d3e4f5a6b7c8d9",
	} {
		image, err := random.Image(1000, 1)
		if err != nil {
			return err
		}
		if _, err := own.Push(path, image); err != nil {
			return err
		}
		if path == "team/tool:bookworm-abc123" { // a second repository contains it by its digest
			if _, err := own.Push("team/debian:copy", image); err != nil {
				return err
			}
		}
	}
	return nil
}

// digest REF: $DIGEST is that of the image in a registry.
func digest(ts *testscript.TestScript, _ bool, args []string) {
	p := registry.DefaultPlatform()
	remote, err := registry.New(nil).Resolve(context.Background(), p, args[0])
	ts.Check(err)
	if !strings.HasPrefix(remote.Source(), args[0]) {
		ts.Fatalf("%s was resolved at %s", args[0], remote.Source())
	}
	ts.Setenv("DIGEST", remote.Digest().String())
}
