package tarball_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/dockercache/dockercache/cache/tarball"
)

// The plan of a tarball: known bytes, and the places of the layers.
func ExampleNewLayout() {
	img, _, err := tarball.FromV1("debian:12", exampleImage())
	if err != nil {
		log.Fatal(err)
	}
	layout, err := tarball.NewLayout(img, tarball.Provenance{Branch: "main"})
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range layout.Segments() {
		if s.IsBlob() {
			fmt.Printf("%5d: layer %.14s…, %d bytes\n", s.Offset, s.Blob, s.Length)
		} else {
			fmt.Printf("%5d: %d known bytes\n", s.Offset, len(s.Literal))
		}
	}
	fmt.Println(layout.Size(), "bytes in all")
	// Output:
	//     0: 8192 known bytes
	//  8192: layer sha256:362c24d…, 11 bytes
	//  8203: 1525 known bytes
	// 9728 bytes in all
}

// An image of go-containerregistry, and ranges of its layers.
func ExampleFromV1() {
	img, src, err := tarball.FromV1("debian:12", exampleImage())
	if err != nil {
		log.Fatal(err)
	}
	r, err := src.ReadRange(context.Background(), img.Layers()[0].Digest, 6, 5)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %q\n", img.Reference(), text)
	// Output: docker.io/library/debian:12: "layer"
}

// A tarball in memory; a file is opened by Open.
func ExampleRead() {
	file := exampleTarball()
	t, err := tarball.Read(bytes.NewReader(file), int64(len(file)), "debian.tar")
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	fmt.Println(t.Image.Reference(), "of branch", t.Provenance.Branch)
	fmt.Println("wrong bytes:", t.Verify(context.Background(), nil))

	img, err := t.V1()
	if err != nil {
		log.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the same digest:", digest == t.Image.Digest())
	// Output:
	// docker.io/library/debian:12 of branch main
	// wrong bytes: <nil>
	// the same digest: true
}

func exampleImage() v1.Image {
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer([]byte("first layer"), types.DockerLayer))
	if err != nil {
		log.Fatal(err)
	}
	return img
}

// exampleTarball writes the tarball as its layout says. Package cache does it with
// ranges in parallel, retries and verification.
func exampleTarball() []byte {
	img, src, err := tarball.FromV1("debian:12", exampleImage())
	if err != nil {
		log.Fatal(err)
	}
	layout, err := tarball.NewLayout(img, tarball.Provenance{Branch: "main"})
	if err != nil {
		log.Fatal(err)
	}
	var file bytes.Buffer
	for _, s := range layout.Segments() {
		if !s.IsBlob() {
			file.Write(s.Literal)
			continue
		}
		r, err := src.ReadRange(context.Background(), s.Blob, 0, s.Length)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := io.Copy(&file, r); err != nil {
			log.Fatal(err)
		}
		r.Close()
	}
	return file.Bytes()
}
