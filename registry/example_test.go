package registry_test

import (
	"context"
	"fmt"
	"io"
	"log"

	"github.com/google/go-containerregistry/pkg/v1/empty"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

func Example() {
	ctx := context.Background()
	mirror, own := exampleRegistry()

	client := registry.New(nil)
	image, err := client.Image(ctx, registry.DefaultPlatform(), mirror, own)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(image.Digest())
	fmt.Println("from the image's own registry:", image.Source() == own)
	// Output:
	// sha256:732112270d7e59418a8c080b134b24cabd67d250d0d0147a97ed95ba5c280aa4
	// from the image's own registry: true
}

func ExampleImage_ReadRange() {
	ctx := context.Background()
	_, ref := exampleRegistry()
	image, err := registry.New(nil).Image(ctx, registry.DefaultPlatform(), ref)
	if err != nil {
		log.Fatal(err)
	}
	config, err := empty.Image.Manifest()
	if err != nil {
		log.Fatal(err)
	}
	// Any blob that the manifest declares, layers or config; here the config.
	body, err := image.ReadRange(ctx, config.Config.Digest, 0, 24)
	if err != nil {
		log.Fatal(err)
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	fmt.Println(string(text), err)
	// Output: {"architecture":"","crea <nil>
}

// exampleRegistry starts a registry in process. It has an image under the
// second reference, not under the first.
func exampleRegistry() (absent, present string) {
	server, err := registrytest.Start()
	if err != nil {
		log.Fatal(err)
	}
	ref, err := server.Push("team/image:name-2f5e", empty.Image)
	if err != nil {
		log.Fatal(err)
	}
	return server.Host() + "/mirror/image:name-2f5e", ref
}
