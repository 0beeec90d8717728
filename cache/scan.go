package cache

import (
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/fetch"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// tarballNames returns the names of what may be tarballs: regular files whose
// names end in .tar and do not begin with a dot, in order.
func tarballNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), ".tar") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// findLayers looks for layers in all tarballs of a directory and returns where
// they are; several places of one layer in the order of the tarballs' names. It
// reads the first KiB of each tarball. What cannot be read has no layers. A link
// is not followed: it might lead anywhere. end must be called.
func findLayers(dir string, wanted []tarball.Segment) (found map[v1.Hash][]fetch.Local, end func()) {
	found = map[v1.Hash][]fetch.Local{}
	var files []*os.File
	end = func() {
		for _, f := range files {
			_ = f.Close()
		}
	}
	if len(wanted) == 0 {
		return found, end
	}
	size := map[v1.Hash]int64{}
	for _, s := range wanted {
		size[s.Blob] = s.Length
	}
	names, _ := tarballNames(dir) // without a list there is nothing to reuse
	for _, name := range names {
		path := filepath.Join(dir, name)
		f, info, err := openLocked(path, sys.NoFollow)
		if err != nil {
			continue
		}
		useful := false
		if t, err := tarball.Read(f, info.Size(), path); err == nil {
			for _, s := range t.Layout.Layers() {
				if n, ok := size[s.Blob]; ok && n == s.Length {
					found[s.Blob] = append(found[s.Blob], fetch.Local{R: f, Offset: s.Offset, Name: path})
					useful = true
				}
			}
		}
		if !useful {
			_ = f.Close()
			continue
		}
		files = append(files, f)
	}
	return found, end
}
