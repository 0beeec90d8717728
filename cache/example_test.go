package cache_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
	"github.com/dockercache/dockercache/tagging"
)

// The whole way of an image: names, registry, tarball. And once more: nothing to
// do.
func Example() {
	image, path, end := exampleImage()
	defer end()

	stock := func(ctx context.Context, image, branch, path string) (*cache.Result, error) {
		tarball, err := tagging.Tarball(image, branch, nil)
		if err != nil {
			return nil, err
		}
		repoTag, err := tagging.RepoTag(image)
		if err != nil {
			return nil, err
		}
		remote, err := registry.New(nil).Image(ctx, registry.DefaultPlatform(), image)
		if err != nil {
			return nil, err
		}
		local, err := cache.NewImage(repoTag, remote.Manifest(), remote.Config())
		if err != nil {
			return nil, err
		}
		dir, err := cache.OpenDir(path, nil)
		if err != nil {
			return nil, err
		}
		return dir.Put(ctx, tarball, local, remote, &cache.PutOptions{Provenance: cache.Provenance{Source: remote.Source(), Branch: branch}})
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

// What a tarball holds, by reading its first few KiB; then all of its bytes.
func ExampleReadTarball() {
	ctx := context.Background()
	path, end := exampleTarball(ctx)
	defer end()

	tarball, err := cache.ReadTarball(path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(tarball.Image.Layers()), "layers, branch", tarball.Provenance.Branch)
	fmt.Println("damage:", tarball.Verify(ctx))
	// Output:
	// 2 layers, branch main
	// damage: <nil>
}

// Any file can be written the way tarballs are.
func ExampleWriteFile() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "state.json")
	err = cache.WriteFile(path, 0o644, func(f *os.File) error {
		_, err := f.WriteString("{}")
		return err
	})
	content, _ := os.ReadFile(path)
	fmt.Println(string(content), err)
	// Output: {} <nil>
}

func exampleImage() (ref, dir string, end func()) {
	server, err := registrytest.Start()
	if err != nil {
		log.Fatal(err)
	}
	image, err := random.Image(1000, 2)
	if err != nil {
		log.Fatal(err)
	}
	if ref, err = server.Push("team/image:name-2f5e", image); err != nil {
		log.Fatal(err)
	}
	if dir, err = os.MkdirTemp("", "example"); err != nil {
		log.Fatal(err)
	}
	return ref, dir, func() { server.Close(); _ = os.RemoveAll(dir) }
}

func exampleTarball(ctx context.Context) (path string, end func()) {
	ref, path, end := exampleImage()
	remote, err := registry.New(nil).Image(ctx, registry.DefaultPlatform(), ref)
	if err != nil {
		log.Fatal(err)
	}
	image, err := cache.NewImage(ref, remote.Manifest(), remote.Config())
	if err != nil {
		log.Fatal(err)
	}
	dir, err := cache.OpenDir(path, nil)
	if err != nil {
		log.Fatal(err)
	}
	result, err := dir.Put(ctx, "name_main.tar", image, remote, &cache.PutOptions{Provenance: cache.Provenance{Branch: "main"}})
	if err != nil {
		log.Fatal(err)
	}
	return result.Path, end
}
