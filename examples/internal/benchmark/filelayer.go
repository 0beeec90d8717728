//go:build linux

package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// fileSize of what is in a layer: the mean of a ROCm image's files is 100 to
	// 500 KiB.
	fileSize = 256 << 10
	// words that files are made of. With them gzip's default level makes 2.6 to 1 of
	// it, by matches as much as by short codes, as of real libraries.
	words, longestWord = 1 << 11, 16
)

// makeFilesLayer writes a gzip layer of about size bytes with many files that
// compress, always the same for a name. It costs an engine what real ones do: to
// unpack, and to write file by file.
func makeFilesLayer(dir, name string, size int64) (layer *v1.Descriptor, diffID v1.Hash, err error) {
	f, err := os.CreateTemp(dir, "layer")
	if err != nil {
		return nil, v1.Hash{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	packed, unpacked := sha256.New(), sha256.New()
	counter := &count{}
	z := gzip.NewWriter(io.MultiWriter(f, packed, counter))
	t := tar.NewWriter(io.MultiWriter(z, unpacked))
	var seed [32]byte
	copy(seed[:], name)
	random := rand.New(rand.NewChaCha8(seed))
	content := make([]byte, fileSize)
	dictionary := newDictionary(random)
	for i := 0; counter.n < size; i++ {
		dictionary.fill(random, content)
		h := tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("opt/%s/%d/%d", name, i/100, i), Mode: 0o644, Size: fileSize}
		if err := t.WriteHeader(&h); err != nil {
			return nil, v1.Hash{}, err
		}
		if _, err := t.Write(content); err != nil {
			return nil, v1.Hash{}, err
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return nil, v1.Hash{}, err
	}
	layer = &v1.Descriptor{MediaType: types.DockerLayer, Size: counter.n, Digest: sum(packed)}
	return layer, sum(unpacked), os.Rename(f.Name(), filepath.Join(dir, blobName(layer.Digest)))
}

type dictionary [words][]byte

func newDictionary(random *rand.Rand) *dictionary {
	var d dictionary
	for i := range d {
		word := make([]byte, 2+random.IntN(longestWord-1))
		for j := range word {
			word[j] = byte(random.Uint32())
		}
		d[i] = word
	}
	return &d
}

// fill writes words, the first ones more often than the last.
func (d *dictionary) fill(random *rand.Rand, p []byte) {
	for n := 0; n < len(p); {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], random.Uint64())
		at := int(binary.LittleEndian.Uint16(b[:])) % words * (int(b[2]) + 1) >> 8
		n += copy(p[n:], d[at])
	}
}

type count struct{ n int64 }

func (c *count) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }
