package server_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/server"
	"github.com/dockercache/dockercache/internal/imagetest"
)

// layerSource gives the layers of an image in memory.
type layerSource struct{ v1.Image }

func (s layerSource) ReadRange(_ context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	l, err := s.LayerByDigest(digest)
	if err != nil {
		return nil, err
	}
	r, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(raw[offset : offset+length])), r.Close()
}

// stock fills a directory with a tarball of an image that has one layer.
func stock(path, file, ref string) error {
	layer, err := imagetest.Layer("base", 1000)
	if err != nil {
		return err
	}
	made, err := imagetest.Image(layer)
	if err != nil {
		return err
	}
	manifest, err := made.RawManifest()
	if err != nil {
		return err
	}
	config, err := made.RawConfigFile()
	if err != nil {
		return err
	}
	image, err := cache.NewImage(ref, manifest, config)
	if err != nil {
		return err
	}
	dir, err := cache.OpenDir(path, nil)
	if err != nil {
		return err
	}
	_, err = dir.Put(context.Background(), file, image, layerSource{made}, nil)
	return err
}

func ExampleNew() {
	path, err := os.MkdirTemp("", "example") // "/var/cache/images"
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(path)
	if err := stock(path, "image_main.tar", "registry.example/team/image:v1"); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()

	dir, err := cache.OpenDir(path, nil)
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(listener, server.New(dir, nil))

	// What an engine does at "docker pull", of all that is there.
	registry, err := name.NewRegistry(listener.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	repositories, err := remote.Catalog(context.Background(), registry)
	if err != nil {
		log.Fatal(err)
	}
	for _, repository := range repositories {
		image, err := remote.Image(registry.Repo(repository).Tag("v1"))
		if err != nil {
			log.Fatal(err)
		}
		layers, err := image.Layers()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(repository, len(layers))
	}
	// Output: registry.example/team/image 1
}
