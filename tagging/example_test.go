package tagging_test

import (
	"fmt"

	"github.com/dockercache/dockercache/tagging"
)

const image = "308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image:pytorch-linux-jammy-rocm-n-py3-2f5ec0d8a6f1b4c3d7e9a0b1c2d3e4f5a6b7c8d9"

func Example() {
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

func ExampleSuffix() {
	fmt.Println(tagging.Suffix("release/2.9", nil)) // PyTorch's rules

	rules := tagging.Rules{
		{Branch: "main", Suffix: "main"},
		{Branch: "hotfix/", Prefix: true, Suffix: "*"}, // made of the branch
	}
	fmt.Println(tagging.Suffix("hotfix/123", rules))
	fmt.Println(tagging.Suffix("nightly", rules))
	// Output:
	// release <nil>
	// hotfix-123 <nil>
	//  no tarball suffix for branch "nightly": the rules are main=main,hotfix/*=*
}

// Another project's branches, as it would state them in a flag.
func ExampleParseRules() {
	rules, err := tagging.ParseRules("trunk=dev,stable/*=stable")
	if err != nil {
		fmt.Println(err)
		return
	}
	suffix, err := tagging.Suffix("stable/4.x", rules)
	fmt.Println(suffix, err)
	_, err = tagging.Suffix("main", rules)
	fmt.Println(err)
	// Output:
	// stable <nil>
	// no tarball suffix for branch "main": the rules are trunk=dev,stable/*=stable
}

func ExampleScheme() {
	for _, text := range []string{"strip", "tag", "strip+repository+platform"} {
		scheme, err := tagging.ParseScheme(text)
		if err != nil {
			fmt.Println(err)
			return
		}
		names, err := scheme.Names("ghcr.io/org/images:jammy-2f5e", "main", "linux/arm64")
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(names.Tarball, "of group", names.Group)
	}
	// Output:
	// jammy_main.tar of group jammy
	// jammy-2f5e_main.tar of group jammy-2f5e
	// ghcr.io+org+images@jammy@linux+arm64_main.tar of group ghcr.io+org+images@jammy@linux+arm64
}

func ExampleMirrorRules() {
	var rules tagging.MirrorRules
	for _, text := range []string{"docker.io=mirror.example", "ghcr.io/org/images=mirror.example/org"} {
		rule, err := tagging.ParseMirrorRule(text)
		if err != nil {
			fmt.Println(err)
			return
		}
		rules = append(rules, rule)
	}
	fmt.Println(rules.Mirrors("debian:bookworm"))
	fmt.Println(rules.Mirrors("ghcr.io/org/images:jammy-2f5e"))
	fmt.Println(rules.Mirrors("quay.io/org/images:jammy-2f5e"))
	// Output:
	// [mirror.example/library/debian:bookworm] <nil>
	// [mirror.example/org:jammy-2f5e] <nil>
	// [] <nil>
}

func ExampleCheckElement() {
	fmt.Println(tagging.CheckElement("jammy_main.tar"))
	fmt.Println(tagging.CheckElement("../jammy_main.tar"))
	// Output:
	// <nil>
	// not safe as one element of a path: the name "../jammy_main.tar" contains a path separator
}
