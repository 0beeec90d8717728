//go:build linux

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
	"math"
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
		if err := makeImage(b.scratch, w, b.options.ratio); err != nil {
			return fmt.Errorf("make %s: %w", w, err)
		}
	}
	return nil
}

func makeImage(dir string, w work, ratio float64) error {
	var layers []madeLayer
	for i := range w.layers {
		layer, diffID, err := makeLayer(dir, fmt.Sprintf("%s-%d", w.name, i), w.size, ratio)
		if err != nil {
			return err
		}
		layers = append(layers, madeLayer{*layer, diffID})
	}
	return makeTag(dir, w.name, layers)
}

type madeLayer struct {
	layer  v1.Descriptor
	diffID v1.Hash
}

// makeTag writes the manifest and config of an image.
func makeTag(dir, tag string, layers []madeLayer) error {
	config := v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.DockerManifestSchema2}
	for _, l := range layers {
		manifest.Layers = append(manifest.Layers, l.layer)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diffID)
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
	return os.Symlink(blobName(digest), filepath.Join(dir, "tag-"+tag))
}

// makeLayer writes a gzip layer of about size bytes with one file, always the
// same for a name, that is ratio times as large. With a ratio of 1 the file is
// random and not compressed; this favours programs that unpack what they pull.
// Otherwise it is random text of few letters, which gzip's Huffman code packs to
// a known size, and which costs as much to unpack as real files do.
func makeLayer(dir, name string, size int64, ratio float64) (layer *v1.Descriptor, diffID v1.Hash, err error) {
	f, err := os.CreateTemp(dir, "layer")
	if err != nil {
		return nil, v1.Hash{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	packed, unpacked := sha256.New(), sha256.New()
	level, letters := gzip.NoCompression, 256
	if ratio > 1 {
		level, letters = gzip.HuffmanOnly, int(math.Exp2(8/ratio))
	}
	z, err := gzip.NewWriterLevel(io.MultiWriter(f, packed), level)
	if err != nil {
		return nil, v1.Hash{}, err
	}
	size = int64(float64(size) * ratio)
	t := tar.NewWriter(io.MultiWriter(z, unpacked))
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "opt/" + name, Mode: 0o644, Size: size}); err != nil {
		return nil, v1.Hash{}, err
	}
	var seed [32]byte
	copy(seed[:], name)
	if _, err := io.CopyBuffer(t, io.LimitReader(&text{rand.NewChaCha8(seed), letters}, size), make([]byte, 1<<20)); err != nil {
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

// text is random bytes of so many different letters.
type text struct {
	random  io.Reader
	letters int
}

func (t *text) Read(p []byte) (int, error) {
	n, err := t.random.Read(p)
	for i := range p[:n] {
		p[i] = byte(int(p[i]) % t.letters)
	}
	return n, err
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
