package cache

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

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

const (
	// peekSize is how much of a tarball is read to know its layers: manifest.json with
	// more than a hundred of them ends before it. Engines take no more than 127.
	peekSize = 32 << 10
	// maxPlaces is in how many readable tarballs a layer is looked up: one is used, the
	// others are for when that fails.
	maxPlaces = 4
)

// A layerIndex knows which layers may be in the tarballs of a directory. It reads a
// tarball once, and again when another file has its name. The zero value is ready. It is
// safe for concurrent use.
type layerIndex struct {
	mu    sync.Mutex
	files map[string]indexedFile // by name
}

type indexedFile struct {
	info   os.FileInfo // of the file that was read
	layers [][sha256.Size]byte
}

// is reports whether a file is the one that was read, and was not written to since.
func (f indexedFile) is(info os.FileInfo) bool {
	return f.info != nil && os.SameFile(f.info, info) && f.info.Size() == info.Size() && f.info.ModTime().Equal(info.ModTime())
}

// A holder is a tarball that lists some of the layers that are looked for.
type holder struct {
	name   string
	layers []v1.Hash
}

// holders returns the tarballs of dir that list any of the layers, in the
// order of their names.
func (x *layerIndex) holders(dir string, layers map[v1.Hash]int64) []holder {
	names, _ := tarballNames(dir) // without a list there is nothing to reuse
	x.mu.Lock()
	known := x.files
	x.mu.Unlock()
	files := make([]indexedFile, len(names))
	var group errgroup.Group
	group.SetLimit(listAtOnce)
	for i, name := range names {
		path := filepath.Join(dir, name)
		if info, err := os.Lstat(path); err == nil && known[name].is(info) {
			files[i] = known[name]
			continue
		}
		// Of a file server most of the time is waiting.
		group.Go(func() error {
			files[i] = peek(path)
			return nil
		})
	}
	_ = group.Wait() // no function returns an error
	now := make(map[string]indexedFile, len(names))
	wanted := map[[sha256.Size]byte]v1.Hash{}
	for layer := range layers {
		var sum [sha256.Size]byte
		if n, err := hex.Decode(sum[:], []byte(layer.Hex)); err == nil && n == len(sum) {
			wanted[sum] = layer
		}
	}
	var found []holder
	for i, f := range files {
		if f.info == nil {
			continue
		}
		now[names[i]] = f
		h := holder{name: names[i]}
		for _, sum := range f.layers {
			if layer, ok := wanted[sum]; ok {
				h.layers = append(h.layers, layer)
			}
		}
		if len(h.layers) > 0 {
			found = append(found, h)
		}
	}
	x.mu.Lock()
	x.files = now
	x.mu.Unlock()
	return found
}

// peek reads which layers a tarball lists: manifest.json names them. It does
// not check that it has them. What cannot be read has none, and is read again next time.
func peek(path string) indexedFile {
	f, err := sys.OpenToRead(path, sys.NoFollow)
	if err != nil {
		return indexedFile{}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return indexedFile{}
	}
	head := make([]byte, min(info.Size(), peekSize))
	if _, err := f.ReadAt(head, 0); err != nil {
		return indexedFile{}
	}
	file := indexedFile{info: info}
	entries := tar.NewReader(bytes.NewReader(head))
	for range 3 { // oci-layout, index.json, manifest.json
		h, err := entries.Next()
		if err != nil || h.Name != "manifest.json" {
			continue
		}
		if manifest, err := io.ReadAll(entries); err == nil {
			file.layers = blobsIn(manifest)
			return file
		}
	}
	// It is longer, or it is none.
	if t, err := tarball.Read(f, info.Size(), path); err == nil {
		for _, l := range t.Layout.Layers() {
			file.layers = append(file.layers, blobsIn([]byte(blobs+l.Blob.Hex))...)
		}
	}
	return file
}

// blobs is how the names of blobs begin in a tarball.
const blobs = "blobs/sha256/"

// blobsIn returns the digests of all blobs that a text names.
func blobsIn(text []byte) (found [][sha256.Size]byte) {
	for {
		_, after, ok := bytes.Cut(text, []byte(blobs))
		if !ok || len(after) < 2*sha256.Size {
			return found
		}
		var sum [sha256.Size]byte
		if _, err := hex.Decode(sum[:], after[:2*sha256.Size]); err == nil {
			found = append(found, sum)
		}
		text = after
	}
}

// findLayers looks for layers in all tarballs of the directory and returns where
// they are, in the order of the tarballs' names. One that has only layers of which
// [maxPlaces] places are known is not opened.
// What cannot be read has no layers. A link is not followed: it might lead anywhere. end
// must be called.
func (d *Dir) findLayers(wanted []tarball.Segment) (found map[v1.Hash][]fetch.Local, end func()) {
	return d.find(wanted, maxPlaces, func(string, *os.File, *tarball.Info) (func() bool, bool) { return nil, true })
}

// findVerified is findLayers for those that are known to be right where they are, one place of
// each. relied is called when such a place was relied upon, with the time at which its bytes
// were hashed.
func (d *Dir) findVerified(wanted []tarball.Segment, relied func(at time.Time)) (found map[v1.Hash][]fetch.Local, end func()) {
	return d.find(wanted, 1, func(name string, f *os.File, t *tarball.Info) (func() bool, bool) {
		state, at, ok := d.verifiedAt(name, f, t.Image.Digest())
		return func() bool {
			now, known := stateAt(f.Name())
			if !known || now != state {
				return false
			}
			relied(at)
			return true
		}, ok
	})
}

// find looks for layers in the tarballs that use accepts, and returns up to so many places of
// each. use returns also what becomes [fetch.Local.Verified].
func (d *Dir) find(wanted []tarball.Segment, most int, use func(name string, f *os.File, t *tarball.Info) (verified func() bool, ok bool)) (found map[v1.Hash][]fetch.Local, end func()) {
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
	for _, h := range d.layers.holders(d.path, size) {
		if !slices.ContainsFunc(h.layers, func(layer v1.Hash) bool { return len(found[layer]) < most }) {
			continue
		}
		path := filepath.Join(d.path, h.name)
		f, info, err := openLocked(path, sys.NoFollow)
		if err != nil {
			continue
		}
		useful := false
		if t, err := tarball.Read(f, info.Size(), path); err == nil {
			verified, ok := use(h.name, f, &t.Info)
			for _, s := range t.Layout.Layers() {
				if n, wanted := size[s.Blob]; ok && wanted && n == s.Length {
					found[s.Blob] = append(found[s.Blob], fetch.Local{R: f, Offset: s.Offset, Name: path, Verified: verified})
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
