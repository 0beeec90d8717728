// Package tarballtest makes tarballs out of nothing, for tests.
package tarballtest

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagetest"
)

// Image returns the image of these layers, bottom first, under a reference, and what
// its layers can be read from.
func Image(ref string, layers ...v1.Layer) (*tarball.Image, tarball.Source, error) {
	made, err := imagetest.Image(layers...)
	if err != nil {
		return nil, nil, err
	}
	return tarball.FromV1(ref, made)
}

// Stock writes the tarball of an image of layers with these names, each of size bytes,
// as docker-cache does.
func Stock(dir *cache.Dir, file, ref string, size int, names ...string) error {
	var layers []v1.Layer
	for _, n := range names {
		l, err := imagetest.Layer(n, size)
		if err != nil {
			return err
		}
		layers = append(layers, l)
	}
	image, source, err := Image(ref, layers...)
	if err != nil {
		return err
	}
	_, err = dir.Put(context.Background(), file, image, source, nil)
	return err
}
