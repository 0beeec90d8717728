// Package cachetest makes small images for the tests of the packages below cache. It
// imports none of them, so that each of them can use it.
package cachetest

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Ref is the reference of images that need no other.
const Ref = "308535385114.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image:name-2f5e"

// Digest returns the sha256 of some bytes.
func Digest(p []byte) v1.Hash {
	sum := sha256.Sum256(p)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// Blobs is a source in memory.
type Blobs map[v1.Hash][]byte

// ReadRange returns a range of a blob.
func (b Blobs) ReadRange(_ context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	blob, ok := b[digest]
	if !ok {
		return nil, fmt.Errorf("no blob %s", digest)
	}
	return io.NopCloser(bytes.NewReader(blob[offset : offset+length])), nil
}

// Add stores content as a layer.
func (b Blobs) Add(content []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: types.DockerLayer, Digest: Digest(content), Size: int64(len(content))}
	b[d.Digest] = content
	return d
}

// SourceFunc is a source made of a function.
type SourceFunc func(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error)

// ReadRange calls the function.
func (f SourceFunc) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	return f(ctx, digest, offset, length)
}

// Gzip returns content compressed.
func Gzip(content []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(content) // into memory: cannot fail
	_ = z.Close()
	return out.Bytes()
}

// Noise returns n bytes that are the same for the same seed.
func Noise(seed byte, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(p) // never fails
	return p
}

// Pair makes a manifest and a config that agree. The layers are not tar files:
// package tarball never looks into them.
func Pair(layers ...v1.Descriptor) (v1.Manifest, []byte) {
	diffIDs := make([]v1.Hash, len(layers))
	for i := range layers {
		diffIDs[i] = Digest([]byte{byte(i)})
	}
	config := fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":%s}}`, Marshal(diffIDs))
	return v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.DockerManifestSchema2,
		Config:        v1.Descriptor{MediaType: types.DockerConfigJSON, Digest: Digest(config), Size: int64(len(config))},
		Layers:        append([]v1.Descriptor{}, layers...),
	}, config
}

// Marshal returns v as JSON; it panics where that cannot be.
func Marshal(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}
