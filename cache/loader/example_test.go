package loader_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/internal/enginetest"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

func ExampleLoad() {
	engine, dir, err := prepare() // what is there otherwise
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
	defer os.RemoveAll(dir.Path())

	ctx := context.Background()
	host, err := loader.Environment(os.Getenv)
	if err != nil {
		log.Fatal(err)
	}
	docker, err := loader.Open(ctx, host)
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"old_main.tar", "new_main.tar", "new_main.tar"} {
		stocked, err := dir.Get(ctx, name)
		if err != nil {
			log.Fatal(err)
		}
		result, err := loader.Load(ctx, docker, stocked, nil)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(stocked.Image.Reference(), result.Outcome, result.Streamed == result.Total)
		_ = stocked.Close()
	}
	// Output:
	// registry.test/ci-image:old loaded true
	// registry.test/ci-image:new loaded-delta false
	// registry.test/ci-image:new present false
}

// prepare starts an engine, and fills a directory.
func prepare() (engine *enginetest.Engine, dir *cache.Dir, err error) {
	if engine, err = enginetest.Start(enginetest.Options{}); err != nil {
		return nil, nil, err
	}
	if err := os.Setenv("DOCKER_HOST", engine.Address()); err != nil {
		return nil, nil, err
	}
	path, err := os.MkdirTemp("", "example")
	if err != nil {
		return nil, nil, err
	}
	if dir, err = cache.Open(path, nil); err != nil {
		return nil, nil, err
	}
	if err := tarballtest.Stock(dir, "old_main.tar", "registry.test/ci-image:old", 1000, "base", "tools"); err != nil {
		return nil, nil, err
	}
	return engine, dir, tarballtest.Stock(dir, "new_main.tar", "registry.test/ci-image:new", 1000, "base", "tools", "more")
}
