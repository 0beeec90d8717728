// Package imagetest makes container images out of nothing, for the sample and
// for tests: real layers that an engine loads, with content that does not
// compress, the same on every run.
package imagetest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Layer returns a gzip layer with two files: opt/<name>/data with size bytes,
// and opt/<name>/name with the name. The same name and size give the same bytes.
func Layer(name string, size int) (v1.Layer, error) {
	// Only copied and hashed: large layers, and the race detector, make each pass over the
	// bytes cost.
	var raw bytes.Buffer
	raw.Grow(size + 4<<10)
	w := tar.NewWriter(&raw)
	data := make([]byte, size)
	var seed [32]byte
	copy(seed[:], name)
	_, _ = rand.NewChaCha8(seed).Read(data) // never fails
	for _, f := range []struct {
		name    string
		content []byte
	}{{"data", data}, {"name", []byte(name + "\n")}} {
		h := tar.Header{Typeflag: tar.TypeReg, Name: "opt/" + name + "/" + f.name, Mode: 0o644, Size: int64(len(f.content))}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	packed := stored(raw.Bytes())
	packedSum, unpackedSum := sha256.Sum256(packed), sha256.Sum256(raw.Bytes())
	return partial.CompressedToLayer(&layer{packed, hash(packedSum[:]), hash(unpackedSum[:])})
}

// stored returns content in gzip, stored and not compressed, which for random bytes would only
// cost time. It is what a [gzip.Writer] with [gzip.NoCompression] writes.
func stored(content []byte) []byte {
	const block = 1<<16 - 1
	packed := make([]byte, 0, len(content)+5*(len(content)/block+2)+18)
	packed = append(packed, 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff) // RFC 1952, 2.3: no name, no time, unknown system
	for left := content; len(left) > 0; {
		n := min(len(left), block)
		packed = append(packed, 0, byte(n), byte(n>>8), ^byte(n), ^byte(n>>8)) // RFC 1951, 3.2.4
		packed = append(packed, left[:n]...)
		left = left[n:]
	}
	packed = append(packed, 1, 0, 0, 0xff, 0xff) // an empty block that is the last one
	packed = binary.LittleEndian.AppendUint32(packed, crc32.ChecksumIEEE(content))
	return binary.LittleEndian.AppendUint32(packed, uint32(len(content)))
}

func hash(sum []byte) v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum)} }

// layer is a [partial.CompressedLayer] that is made once, not whenever it is read.
type layer struct {
	content        []byte
	digest, diffID v1.Hash
}

func (l *layer) Digest() (v1.Hash, error)            { return l.digest, nil }
func (l *layer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l *layer) Size() (int64, error)                { return int64(len(l.content)), nil }
func (l *layer) MediaType() (types.MediaType, error) { return types.DockerLayer, nil }
func (l *layer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.content)), nil
}

// Image returns an image for linux and this machine's architecture with these layers,
// bottom first.
func Image(layers ...v1.Layer) (v1.Image, error) {
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		return nil, err
	}
	if image, err = mutate.AppendLayers(image, layers...); err != nil {
		return nil, fmt.Errorf("append layers: %w", err)
	}
	return image, nil
}

// ZstdLayer is [Layer] in zstd, with this media type.
func ZstdLayer(name string, size int, mediaType types.MediaType) (v1.Layer, error) {
	l, err := Layer(name, size)
	if err != nil {
		return nil, err
	}
	diffID, err := l.DiffID()
	if err != nil {
		return nil, err
	}
	r, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return Blob(zstdFrame(content), diffID, mediaType)
}

// Blob returns a layer of these bytes, as they are.
func Blob(content []byte, diffID v1.Hash, mediaType types.MediaType) (v1.Layer, error) {
	sum := sha256.Sum256(content)
	return partial.CompressedToLayer(typed{&layer{content, hash(sum[:]), diffID}, mediaType})
}

// typed is a layer with another media type.
type typed struct {
	*layer
	mediaType types.MediaType
}

func (t typed) MediaType() (types.MediaType, error) { return t.mediaType, nil }

// zstdFrame returns content in zstd, in blocks that are not compressed
// (https://www.rfc-editor.org/rfc/rfc8878#name-zstandard-frames).
func zstdFrame(content []byte) []byte {
	const block, window = 128 << 10, 7 << 3 // 2^(10+7) bytes
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, window}
	for {
		n := min(len(content), block)
		header := uint32(n) << 3
		if n == len(content) {
			header |= 1 // the last
		}
		frame = append(frame, byte(header), byte(header>>8), byte(header>>16))
		frame = append(frame, content[:n]...)
		if content = content[n:]; len(content) == 0 {
			return frame
		}
	}
}
