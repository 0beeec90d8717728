package interop

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/stream"
	"github.com/stretchr/testify/require"
)

// hostFiles gives the machine's own regular files: what real layers are made of.
func hostFiles() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, root := range []string{"/usr", "/opt", "/lib", "/var/lib", "/root", "/home"} {
			err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
				if err != nil || !e.Type().IsRegular() {
					return nil
				}
				if !yield(path) {
					return fs.SkipAll
				}
				return nil
			})
			if err != nil {
				return
			}
		}
	}
}

// hostLayer is what a layer of the machine's own files shall be.
type hostLayer struct {
	size   int64  // of its tar, at least
	level  int    // of gzip
	marker string // a file more, unless it is ""
}

// hostImage makes an image of the machine's own files, and a marker file with this content.
// The layers are made while they are uploaded.
func hostImage(t *testing.T, content []byte, layers ...hostLayer) v1.Image {
	t.Helper()
	pull, stop := iter.Pull(hostFiles())
	t.Cleanup(stop)
	var mu sync.Mutex
	next := func() (string, bool) { // layers are uploaded, so made, side by side
		mu.Lock()
		defer mu.Unlock()
		return pull()
	}
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}})
	require.NoError(t, err)
	for _, l := range layers {
		r, w := io.Pipe()
		go func() { w.CloseWithError(writeLayer(w, next, l, content)) }()
		image, err = mutate.AppendLayers(image, stream.NewLayer(r, stream.WithCompressionLevel(l.level)))
		require.NoError(t, err)
	}
	return image
}

// writeLayer writes the tar of a layer.
func writeLayer(w io.Writer, next func() (string, bool), l hostLayer, content []byte) error {
	counter := &counting{w: w}
	tw := tar.NewWriter(counter)
	if l.marker != "" {
		h := tar.Header{Typeflag: tar.TypeReg, Name: l.marker, Mode: 0o644, Size: int64(len(content))}
		if err := errors.Join(tw.WriteHeader(&h), write(tw, content)); err != nil {
			return err
		}
	}
	for counter.n < l.size {
		path, ok := next()
		if !ok {
			return errors.New("this machine has too few files for the image")
		}
		if err := addFile(tw, path, l.size); err != nil {
			return err
		}
	}
	return tw.Close()
}

// addFile adds a file, unless it is larger than the layer shall be.
func addFile(tw *tar.Writer, path string, limit int64) error {
	f, err := os.Open(path)
	if err != nil {
		return nil // not readable: not in the image
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 || info.Size() > limit {
		return err
	}
	// What may change while it is read is cut or filled to the size it had.
	h := tar.Header{Typeflag: tar.TypeReg, Name: "host" + path, Mode: 0o644, Size: info.Size(), ModTime: info.ModTime()}
	if err := tw.WriteHeader(&h); err != nil {
		return err
	}
	n, err := io.Copy(tw, io.LimitReader(f, info.Size()))
	if err != nil {
		return err
	}
	return write(tw, make([]byte, info.Size()-n))
}

func write(w io.Writer, p []byte) error { _, err := w.Write(p); return err }

type counting struct {
	w io.Writer
	n int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
