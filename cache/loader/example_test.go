package loader_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/loader/enginetest"
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

// stock fills a directory with a tarball.
func stock(dir *cache.Dir, name, ref string, names ...string) error {
	var layers []v1.Layer
	for _, n := range names {
		l, err := imagetest.Layer(n, 1000)
		if err != nil {
			return err
		}
		layers = append(layers, l)
	}
	made, err := imagetest.Image(layers...)
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
	_, err = dir.Put(context.Background(), name, image, layerSource{made}, nil)
	return err
}

func ExampleLoad() {
	ctx := context.Background()
	engine, err := enginetest.Start(enginetest.Options{}) // where Docker would be
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
	temp, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(temp)
	dir, err := cache.OpenDir(temp, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := stock(dir, "old_main.tar", "registry.test/ci-image:old", "base", "tools"); err != nil {
		log.Fatal(err)
	}
	if err := stock(dir, "new_main.tar", "registry.test/ci-image:new", "base", "tools", "more"); err != nil {
		log.Fatal(err)
	}

	host, err := loader.Environment(func(name string) string {
		return map[string]string{"DOCKER_HOST": engine.Address()}[name] // os.Getenv
	})
	if err != nil {
		log.Fatal(err)
	}
	docker, err := loader.Connect(ctx, host)
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"old_main.tar", "new_main.tar", "new_main.tar"} {
		tarball, err := cache.ReadTarball(filepath.Join(dir.Path(), name))
		if err != nil {
			log.Fatal(err)
		}
		result, err := loader.Load(ctx, docker, tarball, &loader.Options{LockDir: temp})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(tarball.Image.Reference(), result.Outcome, result.Streamed == result.Total)
	}
	// Output:
	// registry.test/ci-image:old loaded true
	// registry.test/ci-image:new loaded-delta false
	// registry.test/ci-image:new present false
}
