package tagging_test

import (
	"fmt"

	"github.com/dockercache/dockercache/tagging"
)

func Example() {
	image := "308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image:pytorch-linux-jammy-rocm-n-py3-2f5ec0d8a6f1b4c3d7e9a0b1c2d3e4f5a6b7c8d9"

	tarball, err := tagging.Tarball(image, "release/2.9", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	mirror, err := tagging.Mirror(image, "ghcr.io/pytorch/ci-image")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(tarball)
	fmt.Println(mirror)
	// Output:
	// pytorch-linux-jammy-rocm-n-py3_release.tar
	// ghcr.io/pytorch/ci-image:pytorch-linux-jammy-rocm-n-py3-2f5ec0d8a6f1b4c3d7e9a0b1c2d3e4f5a6b7c8d9
}

// Another project's branches, as it would state them in a flag.
func ExampleParseRules() {
	rules, err := tagging.ParseRules("trunk=dev,stable/*=stable")
	if err != nil {
		fmt.Println(err)
		return
	}
	suffix, err := rules.Suffix("stable/4.x")
	fmt.Println(suffix, err)
	_, err = rules.Suffix("main")
	fmt.Println(err)
	// Output:
	// stable <nil>
	// no tarball suffix for branch "main": the rules are trunk=dev,stable/*=stable
}
