package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// makeImages writes the images of all works as the files that the registry
// serves: blobs by digest, manifests by digest and by tag.
func (b *bench) makeImages() error {
	for _, w := range b.options.selected() {
		fmt.Fprintf(os.Stderr, "making %s\n", w)
		if err := makeImage(b.scratch, w); err != nil {
			return fmt.Errorf("make %s: %w", w, err)
		}
	}
	return nil
}

func makeImage(dir string, w work) error {
	config := v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.DockerManifestSchema2}
	for i := range w.layers {
		layer, diffID, err := makeLayer(dir, fmt.Sprintf("%s-%d", w.name, i), w.size)
		if err != nil {
			return err
		}
		manifest.Layers = append(manifest.Layers, *layer)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return err
	}
	digest, err := writeBlob(dir, raw)
	if err != nil {
		return err
	}
	manifest.Config = v1.Descriptor{MediaType: types.DockerConfigJSON, Size: int64(len(raw)), Digest: digest}
	if raw, err = json.Marshal(manifest); err != nil {
		return err
	}
	if digest, err = writeBlob(dir, raw); err != nil {
		return err
	}
	return os.Symlink(blobName(digest), filepath.Join(dir, "tag-"+w.name))
}

// makeLayer writes a layer with one file of random bytes, always the same for a
// name. It is a gzip file without compression, so that its size is known; this
// favours programs that unpack what they pull, real layers cost them more.
func makeLayer(dir, name string, size int64) (layer *v1.Descriptor, diffID v1.Hash, err error) {
	f, err := os.CreateTemp(dir, "layer")
	if err != nil {
		return nil, v1.Hash{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	packed, unpacked := sha256.New(), sha256.New()
	z, err := gzip.NewWriterLevel(io.MultiWriter(f, packed), gzip.NoCompression)
	if err != nil {
		return nil, v1.Hash{}, err
	}
	t := tar.NewWriter(io.MultiWriter(z, unpacked))
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "opt/" + name, Mode: 0o644, Size: size}); err != nil {
		return nil, v1.Hash{}, err
	}
	var seed [32]byte
	copy(seed[:], name)
	if _, err := io.CopyBuffer(t, io.LimitReader(rand.NewChaCha8(seed), size), make([]byte, 1<<20)); err != nil {
		return nil, v1.Hash{}, err
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return nil, v1.Hash{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, v1.Hash{}, err
	}
	layer = &v1.Descriptor{MediaType: types.DockerLayer, Size: info.Size(), Digest: sum(packed)}
	return layer, sum(unpacked), os.Rename(f.Name(), filepath.Join(dir, blobName(layer.Digest)))
}

func sum(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", h.Sum(nil))}
}

func writeBlob(dir string, content []byte) (v1.Hash, error) {
	h := sha256.New()
	_, _ = h.Write(content) // a hash never fails
	digest := sum(h)
	return digest, os.WriteFile(filepath.Join(dir, blobName(digest)), content, 0o600)
}

// blobName is the name of a blob's or manifest's file.
func blobName(digest v1.Hash) string { return "blob-" + digest.Hex }
