// Package sample has images to stock without a network.
package sample

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// A Sample is a small picture of the workflow that docker-cache replaces: three images
// with the workflow's names, of which two share layers; a mirror that has only two of
// them, since scheduled builds push to their own registry alone; and some 100 MB of
// data.
type Sample struct {
	// Images are the references.
	Images []string
	// Mirror is the mirror's repository.
	Mirror string
	// Dir is where to stock them.
	Dir    string
	made   bool // Dir
	server *registrytest.Server
}

const (
	own    = "pytorch/ci-image"
	mirror = "mirror/pytorch/ci-image"
	hash   = "2f5ec0d8a6f1b4c3d7e9a0b1c2d3e4f5a6b7c8d9"
	mib    = 1 << 20
)

// Start starts a registry in this process that has the images. The directory must be
// empty: the sample's tarballs have the names of real ones, and must not replace any.
// With "" one is made below the working directory, since its tarballs stay. End must be
// called in the end.
func Start(dir string) (*Sample, error) { return start(dir, registrytest.Start) }

// StartSlow is Start with a registry that is like one far away: it gives so many bytes a second to each
// connection, and answers after a round trip.
func StartSlow(dir string, bytesPerSecond int64, roundTrip time.Duration) (*Sample, error) {
	return start(dir, func() (*registrytest.Server, error) { return registrytest.StartSlow(bytesPerSecond, roundTrip) })
}

func start(dir string, listen func() (*registrytest.Server, error)) (*Sample, error) {
	if dir != "" {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		if len(entries) > 0 {
			return nil, fmt.Errorf("%s is not empty: give the sample a directory of its own", dir)
		}
	}
	server, err := listen()
	if err != nil {
		return nil, err
	}
	s := &Sample{server: server, Mirror: server.Host() + "/" + mirror, Dir: dir}
	if err = s.push(); err == nil && dir == "" {
		if s.Dir, err = os.MkdirTemp(".", "docker-cache-sample-"); err != nil {
			err = fmt.Errorf("make a directory for the tarballs: %w", err)
		}
		s.Dir, s.made = filepath.Clean(s.Dir), err == nil
	}
	if err != nil {
		s.End(false)
		return nil, err
	}
	return s, nil
}

// End stops the registry. Without keep a directory that Start made is removed.
func (s *Sample) End(keep bool) {
	s.server.Close()
	if s.made && !keep {
		_ = os.RemoveAll(s.Dir) // nothing was promised about it yet
	}
}

func (s *Sample) push() (err error) {
	layers := map[string]v1.Layer{}
	for name, size := range map[string]int{"jammy": 30 * mib, "rocm": 40 * mib, "benchmarks": 10 * mib, "noble": 20 * mib} {
		if layers[name], err = imagetest.Layer(name, size); err != nil {
			return err
		}
	}
	for _, image := range []struct {
		name     string
		layers   []v1.Layer
		mirrored bool
	}{
		{"pytorch-linux-jammy-rocm-n-py3", []v1.Layer{layers["jammy"], layers["rocm"]}, true},
		{"pytorch-linux-noble-rocm-n-py3", []v1.Layer{layers["noble"]}, false},
		{"pytorch-linux-jammy-rocm-n-py3-benchmarks", []v1.Layer{layers["jammy"], layers["rocm"], layers["benchmarks"]}, true},
	} {
		made, err := imagetest.Image(image.layers...)
		if err != nil {
			return err
		}
		tag := ":" + image.name + "-" + hash
		ref, err := s.server.Push(own+tag, made)
		if err != nil {
			return err
		}
		if image.mirrored {
			if _, err := s.server.Push(mirror+tag, made); err != nil {
				return err
			}
		}
		s.Images = append(s.Images, ref)
	}
	return nil
}
