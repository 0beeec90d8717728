package server_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/server"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

// stock fills a directory with a tarball of an image that has one layer.
func stock(path, file, ref string) error {
	dir, err := cache.OpenDir(path, nil)
	if err != nil {
		return err
	}
	return tarballtest.Stock(dir, file, ref, 1000, "base")
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
