//go:build linux

// Command benchmark measures this project's docker-cache side by side with the
// programs that others use to make one tarball of an image: crane, regctl,
// skopeo, and docker pull, tag and save; those of them that are installed.
//
//	go run ./examples/internal/benchmark
//
// prints tables in Markdown. All programs get the same images from the same
// registry, which is another process, and write into the same memory-backed
// directory. Nothing but loopback is used. See BENCHMARKS.md.
package main
