package main

import (
	"fmt"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// The sample is a small picture of what is replaced: three images with the
// workflow's names, of which two share layers; a mirror that has only two of
// them, since scheduled builds push to their own registry alone; and some
// 100 MB of data.
const (
	sampleOwn    = "pytorch/ci-image"
	sampleMirror = "mirror/pytorch/ci-image"
	sampleHash   = "2f5ec0d8a6f1b4c3d7e9a0b1c2d3e4f5a6b7c8d9"
	mib          = 1 << 20
)

// setUpSample starts a registry with the sample's images and sets the options
// to them. What follows is the same code as in a real run. end stops the
// registry, and without keep removes a directory that was made for the sample.
func setUpSample(o *options) (end func(keep bool), err error) {
	// The sample's tarballs have the names of real ones: it must not replace any.
	if o.dir != "" {
		entries, err := os.ReadDir(o.dir)
		if err != nil {
			return nil, err
		}
		if len(entries) > 0 {
			return nil, fmt.Errorf("%s is not empty: give the sample a directory of its own", o.dir)
		}
	}
	server, err := registrytest.Start()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			server.Close()
		}
	}()
	layers := map[string]v1.Layer{}
	for name, size := range map[string]int{"jammy": 30 * mib, "rocm": 40 * mib, "benchmarks": 10 * mib, "noble": 20 * mib} {
		if layers[name], err = imagetest.Layer(name, size); err != nil {
			return nil, err
		}
	}
	for _, sample := range []struct {
		name     string
		layers   []v1.Layer
		mirrored bool
	}{
		{"pytorch-linux-jammy-rocm-n-py3", []v1.Layer{layers["jammy"], layers["rocm"]}, true},
		{"pytorch-linux-noble-rocm-n-py3", []v1.Layer{layers["noble"]}, false},
		{"pytorch-linux-jammy-rocm-n-py3-benchmarks", []v1.Layer{layers["jammy"], layers["rocm"], layers["benchmarks"]}, true},
	} {
		image, err := imagetest.Image(sample.layers...)
		if err != nil {
			return nil, err
		}
		tag := ":" + sample.name + "-" + sampleHash
		ref, err := server.Push(sampleOwn+tag, image)
		if err != nil {
			return nil, err
		}
		if sample.mirrored {
			if _, err := server.Push(sampleMirror+tag, image); err != nil {
				return nil, err
			}
		}
		o.images = append(o.images, ref)
	}
	o.keychain = authn.NewMultiKeychain() // nobody's: the sample needs no credentials
	o.mirrors = list{server.Host() + "/" + sampleMirror}
	made := o.dir == ""
	if made {
		if o.dir, err = os.MkdirTemp("", "docker-cache-sample-"); err != nil {
			return nil, fmt.Errorf("make a directory for the tarballs: %w", err)
		}
	}
	return func(keep bool) {
		server.Close()
		if made && !keep {
			_ = os.RemoveAll(o.dir) // nothing was promised about it yet
		}
	}, nil
}
