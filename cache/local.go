package cache

import (
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// A localLayer is a layer in a file of the directory. Whether its bytes are
// right is known only when they were hashed.
type localLayer struct {
	file   *os.File
	offset int64
}

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
// reads the first KiB of each tarball. What cannot be read has no layers. close
// must be called.
func findLayers(dir string, wanted []Segment) (found map[v1.Hash][]localLayer, close func()) {
	found = map[v1.Hash][]localLayer{}
	var files []*os.File
	close = func() {
		for _, f := range files {
			_ = f.Close()
		}
	}
	if len(wanted) == 0 {
		return found, close
	}
	size := map[v1.Hash]int64{}
	for _, s := range wanted {
		size[s.Blob] = s.Length
	}
	names, _ := tarballNames(dir) // without a list there is nothing to reuse
	for _, name := range names {
		f, layout := openLocal(filepath.Join(dir, name))
		if f == nil {
			continue
		}
		useful := false
		for _, s := range layout.segments {
			if n, ok := size[s.Blob]; ok && s.IsBlob() && n == s.Length {
				found[s.Blob] = append(found[s.Blob], localLayer{f, s.Offset})
				useful = true
			}
		}
		if !useful {
			_ = f.Close()
			continue
		}
		files = append(files, f)
	}
	return found, close
}

// openLocal opens a tarball for its layers: a file, and no link to one, which
// might be anywhere.
func openLocal(path string) (*os.File, *Layout) {
	f, err := openToRead(path, unix.O_NOFOLLOW)
	if err != nil {
		return nil, nil
	}
	lockShared(f)
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		if t, err := readHead(f, info.Size()); err == nil {
			return f, t.Layout
		}
	}
	_ = f.Close()
	return nil, nil
}
