package loader_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/loader/enginetest"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

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
	if err := tarballtest.Stock(dir, "old_main.tar", "registry.test/ci-image:old", 1000, "base", "tools"); err != nil {
		log.Fatal(err)
	}
	if err := tarballtest.Stock(dir, "new_main.tar", "registry.test/ci-image:new", 1000, "base", "tools", "more"); err != nil {
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
