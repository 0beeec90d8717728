// Package tarballtest makes tarballs out of nothing, for tests.
package tarballtest

import (
	"bytes"
	"context"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagetest"
)

// Once is how many bytes were downloaded of which each is needed: a range that is slow, as on a
// busy machine, is fetched by two connections at the same time.
func Once(r *cache.Result) int64 {
	n := r.Downloaded
	for _, s := range r.Sources {
		n -= s.Duplicate
	}
	return n
}

// Blobs are the bytes of layers, a [tarball.Source] that has ranges.
type Blobs map[v1.Hash][]byte

// ReadRange implements [tarball.Source].
func (b Blobs) ReadRange(_ context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b[digest][offset : offset+length])), nil
}

// Add adds the bytes of a layer.
func (b Blobs) Add(l v1.Layer) error {
	digest, err := l.Digest()
	if err != nil {
		return err
	}
	size, err := l.Size()
	if err != nil {
		return err
	}
	r, err := l.Compressed()
	if err != nil {
		return err
	}
	defer r.Close()
	b[digest] = make([]byte, size)
	_, err = io.ReadFull(r, b[digest])
	return err
}

// Image returns the image of these layers, bottom first, under a reference, and what
// its layers can be read from, as streams.
func Image(ref string, layers ...v1.Layer) (*tarball.Image, tarball.Source, error) {
	made, err := imagetest.Image(layers...)
	if err != nil {
		return nil, nil, err
	}
	return tarball.FromV1(ref, made)
}

// Stock writes the tarball of an image of layers with these names, each of size bytes,
// as docker-cache does with -replace.
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
	_, err = dir.Put(context.Background(), file, image, source, &cache.PutOptions{Replace: true})
	return err
}
