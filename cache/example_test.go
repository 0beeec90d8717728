package cache_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
	"github.com/dockercache/dockercache/tagging"
)

// The whole way of an image: names, registry, tarball. The second time it is one request
// to the registry, and nothing to do.
func Example() {
	image, path, end := exampleRegistry()
	defer end()

	stock := func(ctx context.Context, image, branch, path string) (*cache.Result, error) {
		names, err := tagging.Scheme{}.Names(image, branch, "") // NAME_main.tar; branches by PyTorch's rules
		if err != nil {
			return nil, err
		}
		remote, err := registry.New(nil).Resolve(ctx, registry.DefaultPlatform(), image)
		if err != nil {
			return nil, err
		}
		dir, err := cache.Open(path, nil)
		if err != nil {
			return nil, err
		}
		return dir.Stock(ctx, names.Tarball, names.RepoTag, remote, nil)
	}

	for range 2 {
		result, err := stock(context.Background(), image, "main", path)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(filepath.Base(result.Path), result.Outcome)
	}
	// Output:
	// name_main.tar stocked
	// name_main.tar unchanged
}

// One file, wherever it shall be. The image is any of go-containerregistry's.
func ExampleWriteTarball() {
	ctx := context.Background()
	path := filepath.Join(exampleDir(), "image.tar")
	defer os.RemoveAll(filepath.Dir(path))

	write := func(ctx context.Context, path, ref string, img v1.Image) error {
		image, source, err := tarball.FromV1(ref, img)
		if err != nil {
			return err
		}
		return cache.WriteTarball(ctx, path, image, source, nil)
	}

	if err := write(ctx, path, "example.com/team/image:1", exampleImage(1)); err != nil {
		log.Fatal(err)
	}
	written, err := tarball.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer written.Close()
	fmt.Println(written.Image.Reference(), "has", len(written.Image.Layers()), "layers")
	fmt.Println("damage:", written.Verify(ctx, nil))
	// Output:
	// example.com/team/image:1 has 2 layers
	// damage: <nil>
}

// Room is made from time to time. The newest tarball of each image stays.
func ExampleDir_Prune() {
	ctx := context.Background()
	dir := exampleStocked("a_hotfix.tar", "a_main.tar", "b_main.tar")
	defer os.RemoveAll(dir.Path())

	result, err := dir.Prune(ctx, &cache.PruneOptions{MaxBytes: 1, MaxAge: 30 * 24 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range result.Removed {
		fmt.Println(p.Entry.Name, "is gone:", p.Why)
	}
	for _, p := range result.Kept {
		fmt.Println(p.Entry.Name, "stays:", p.Kept)
	}
	// Output:
	// a_hotfix.tar is gone: bytes
	// a_main.tar stays: newest
	// b_main.tar stays: newest
}

func exampleDir() string {
	path, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	return path
}

// exampleImage makes an image of two layers.
func exampleImage(seed int64) v1.Image {
	img, err := random.Image(1000+seed, 2)
	if err != nil {
		log.Fatal(err)
	}
	return img
}

// exampleRegistry starts a registry that has an image, and makes a directory.
func exampleRegistry() (image, path string, end func()) {
	server, err := registrytest.Start()
	if err != nil {
		log.Fatal(err)
	}
	if image, err = server.Push("team/image:name-2f5e", exampleImage(1)); err != nil {
		log.Fatal(err)
	}
	path = exampleDir()
	return image, path, func() { server.Close(); _ = os.RemoveAll(path) }
}

// exampleStocked stocks an image under each name, one after the other.
func exampleStocked(tarballs ...string) *cache.Dir {
	dir, err := cache.Open(exampleDir(), nil)
	if err != nil {
		log.Fatal(err)
	}
	for i, name := range tarballs {
		image, source, err := tarball.FromV1("example.com/team/image:1", exampleImage(int64(i)))
		if err != nil {
			log.Fatal(err)
		}
		result, err := dir.Put(context.Background(), name, image, source, nil)
		if err != nil {
			log.Fatal(err)
		}
		at := time.Now().Add(time.Duration(i-len(tarballs)) * time.Hour)
		if err := os.Chtimes(result.Path, at, at); err != nil {
			log.Fatal(err)
		}
	}
	return dir
}
