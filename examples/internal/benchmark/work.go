//go:build linux

package main

import (
	"fmt"
	"slices"
)

// A work is an image to pull.
type work struct {
	name   string
	layers int
	size   int64 // of a layer, in bytes
}

// works are the shapes that matter: the one layer that is nearly the whole
// image, as in ROCm images; a few big ones, which a program can pull side by
// side; and many small ones, where the requests are what takes time.
var works = []work{
	{"giant", 1, 1 << 30},
	{"big", 4, 256 << 20},
	{"small", 40, 4 << 20},
}

func workNames() []string {
	var names []string
	for _, w := range works {
		names = append(names, w.name)
	}
	return names
}

func (w work) String() string {
	return fmt.Sprintf("%s (%d × %.4g MiB)", w.name, w.layers, float64(w.size)/(1<<20))
}

// reference of the work's image at a registry.
func (w work) reference(host string) string {
	return host + "/bench/image:" + w.name
}

// selected are the works of this run, at its scale.
func (o *options) selected() []work {
	var found []work
	for _, w := range works {
		if slices.Contains(o.works, w.name) {
			w.size = max(int64(float64(w.size)*o.scale), 1)
			found = append(found, w)
		}
	}
	return found
}
