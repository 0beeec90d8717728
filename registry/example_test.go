package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// One request says which image it is. The rest is asked for when it is needed.
func Example() {
	ctx := context.Background()
	mirror, own := exampleRegistry()

	client := registry.New(nil)
	resolved, err := client.Resolve(ctx, registry.DefaultPlatform(), mirror, own)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resolved.Digest())
	fmt.Println("from the image's own registry:", resolved.Source() == own)

	manifest, config, err := resolved.Content(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(manifest), "bytes of manifest,", len(config), "bytes of config")

	// Any blob that the manifest declares, layers or config; here the config.
	parsed, err := v1.ParseManifest(bytes.NewReader(manifest))
	if err != nil {
		log.Fatal(err)
	}
	body, err := resolved.ReadRange(ctx, parsed.Config.Digest, 0, 24)
	if err != nil {
		log.Fatal(err)
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	fmt.Println(string(text), err)
	// Output:
	// sha256:732112270d7e59418a8c080b134b24cabd67d250d0d0147a97ed95ba5c280aa4
	// from the image's own registry: true
	// 264 bytes of manifest, 115 bytes of config
	// {"architecture":"","crea <nil>
}

// A transport of one's own begins with the client's.
func ExampleDefaultTransport() {
	transport := registry.DefaultTransport()
	transport.MaxConnsPerHost = 8
	client := registry.New(&registry.Options{Transport: transport})
	_, own := exampleRegistry()
	image, err := client.Image(context.Background(), registry.DefaultPlatform(), own)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(image.MediaType())
	// Output: application/vnd.docker.distribution.manifest.v2+json
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
