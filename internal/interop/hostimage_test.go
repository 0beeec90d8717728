package interop

import (
	"archive/tar"
	"compress/gzip"
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

// hostImage makes an image of the machine's own files, in count gzip layers of
// at least layerSize bytes each as they are uploaded, and a marker file in the
// middle one. The layers are made while they are uploaded.
func hostImage(t *testing.T, count int, layerSize int64, marker string, content []byte) v1.Image {
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
	for i := range count {
		r, w := io.Pipe()
		go func() {
			extra := ""
			if i == count/2 {
				extra = marker
			}
			w.CloseWithError(writeLayer(w, next, layerSize, extra, content))
		}()
		// Huffman alone: real file data in real gzip, at five times the speed.
		layer := stream.NewLayer(r, stream.WithCompressionLevel(gzip.HuffmanOnly))
		image, err = mutate.AppendLayers(image, layer)
		require.NoError(t, err)
	}
	return image
}

// writeLayer writes a tar of files until so much of it is written that its
// compressed form has size bytes: what is compressed here is counted.
func writeLayer(w io.Writer, next func() (string, bool), size int64, marker string, content []byte) error {
	counter := &counting{}
	gz, err := gzip.NewWriterLevel(counter, gzip.HuffmanOnly)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(io.MultiWriter(w, gz))
	if marker != "" {
		h := tar.Header{Typeflag: tar.TypeReg, Name: marker, Mode: 0o644, Size: int64(len(content))}
		if err := errors.Join(tw.WriteHeader(&h), write(tw, content)); err != nil {
			return err
		}
	}
	for counter.n < size {
		path, ok := next()
		if !ok {
			return errors.New("this machine has too few files for the image")
		}
		if err := addFile(tw, path); err != nil {
			return err
		}
	}
	return tw.Close()
}

func addFile(tw *tar.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return nil // not readable: not in the image
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
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

type counting struct{ n int64 }

func (c *counting) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }
