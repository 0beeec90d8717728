package artifacts_test

import (
	"fmt"
	"log"
	"os"
	"testing/fstest"

	"github.com/dockercache/dockercache/artifacts"
)

func ExampleReadOutputs() {
	downloaded := fstest.MapFS{ // or os.DirFS("docker-builds-artifacts")
		"docker-builds-output-jammy.txt": {Data: []byte("jammy=registry.example.com/ci-image:jammy-2f5e\n")},
		"docker-builds-output-noble.txt": {Data: []byte("noble=registry.example.com/ci-image:noble-2f5e")},
	}

	outputs, overridden, err := artifacts.ReadOutputs(downloaded)
	if err != nil {
		log.Fatal(err)
	}
	for _, o := range overridden {
		fmt.Fprintf(os.Stderr, "%s:%d is overridden\n", o.File, o.Line)
	}
	for _, o := range outputs {
		fmt.Println(o.Name, o.Reference)
	}
	// Output:
	// jammy registry.example.com/ci-image:jammy-2f5e
	// noble registry.example.com/ci-image:noble-2f5e
}
