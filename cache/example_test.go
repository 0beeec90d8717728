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
)

// One file, wherever it shall be. The image is any of go-containerregistry's.
func ExampleWriteTarball() {
	ctx := context.Background()
	path := filepath.Join(exampleDir(), "image.tar")
	defer os.RemoveAll(filepath.Dir(path))

	image, source, err := tarball.FromV1("example.com/team/image:1", exampleImage(1))
	if err != nil {
		log.Fatal(err)
	}
	if err := cache.WriteTarball(ctx, path, image, source, nil); err != nil {
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

// A directory that machines share. The second time there is nothing to do, and the
// image's registry is not even asked for the manifest.
func ExampleOpen() {
	ctx := context.Background()
	path := exampleDir()
	defer os.RemoveAll(path)
	remote := exampleRemote(1) // registry.Client.Resolve returns one

	dir, err := cache.Open(path, nil)
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		result, err := dir.Stock(ctx, "image_main.tar", "example.com/team/image:1", remote, nil)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(filepath.Base(result.Path), result.Outcome)
	}

	stocked, err := dir.Get(ctx, "image_main.tar")
	if err != nil {
		log.Fatal(err)
	}
	defer stocked.Close() // until then Prune does not remove it
	fmt.Println("from", stocked.Provenance.Source)
	// Output:
	// image_main.tar stocked
	// image_main.tar unchanged
	// from mirror.example.com/team/image:1
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

// memory is a [cache.Remote] without a registry.
type memory struct {
	layers
	image *tarball.Image
}

type layers interface{ tarball.Source } // Source is a method of memory

func (m memory) Digest() v1.Hash { return m.image.Digest() }
func (m memory) Source() string  { return m.image.Reference() }
func (m memory) Content(context.Context) (manifest, config []byte, err error) {
	return m.image.Manifest(), m.image.Config(), nil
}

func exampleRemote(seed int64) cache.Remote {
	image, source, err := tarball.FromV1("mirror.example.com/team/image:1", exampleImage(seed))
	if err != nil {
		log.Fatal(err)
	}
	return memory{source, image}
}

// exampleStocked stocks an image under each name, one after the other.
func exampleStocked(tarballs ...string) *cache.Dir {
	dir, err := cache.Open(exampleDir(), nil)
	if err != nil {
		log.Fatal(err)
	}
	for i, name := range tarballs {
		result, err := dir.Stock(context.Background(), name, "example.com/team/image:1", exampleRemote(int64(i)), nil)
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
