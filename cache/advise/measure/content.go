package measure

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// A content is the beginning of a layer: as much as fits in some bytes of the layer as it is served.
type content struct {
	tar []byte // whole entries, without the end of the archive
	// packed is how many bytes of the served layer that was.
	packed int64
	// plain: the layer is not compressed, or does not get smaller by it.
	plain bool
}

// beginning reads the beginning of a layer, of at most n bytes as it is served, up to the last entry that is
// whole. A first entry that is larger is cut: it is a file with fewer bytes.
func beginning(ctx context.Context, src tarball.Source, layer v1.Descriptor, n int64) (*content, error) {
	n = min(n, layer.Size)
	body, err := src.ReadRange(ctx, layer.Digest, 0, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	counted := &counter{r: body}
	served := bufio.NewReaderSize(counted, 64<<10)
	var unpacked io.Reader = served
	head, err := served.Peek(4)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", layer.Digest, err)
	}
	c := &content{plain: true}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(served)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", layer.Digest, err)
		}
		unpacked, c.plain = z, false
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return nil, fmt.Errorf("layer %s: a sample cannot be made of a layer in zstd", layer.Digest)
	}
	// Zeros may unpack to a thousand times as much.
	err = c.entries(untilEnd{ctx, io.LimitReader(unpacked, mostUnpacked*n)}, func() int64 { return counted.n - int64(served.Buffered()) })
	if err = cmp.Or(wait.Err(ctx), err); err != nil {
		return nil, fmt.Errorf("layer %s: %w", layer.Digest, err)
	}
	c.plain = c.plain || int64(len(c.tar)) < c.packed+c.packed/20
	return c, nil
}

// mostUnpacked is how many bytes a sample may have for one of the layer as it is served.
const mostUnpacked = 4

// entries reads the entries of an archive up to its end, or to where it breaks off, and calls packed to
// know how many bytes as served that was.
func (c *content) entries(r io.Reader, packed func() int64) error {
	var archive bytes.Buffer
	reader, writer := tar.NewReader(r), tar.NewWriter(&archive)
	for {
		h, err := reader.Next()
		if err != nil { // the end of the layer, or of what was asked for
			break
		}
		h.Format = tar.FormatUnknown // what is needed
		before := archive.Len()
		if writer.WriteHeader(h) != nil {
			continue // an entry that package tar reads and does not write
		}
		header := archive.Len()
		_, err = io.Copy(writer, reader)
		if err == nil {
			err = writer.Flush() // pads
		}
		if err == nil {
			c.packed = packed()
			continue
		}
		data := bytes.Clone(archive.Bytes()[header:])
		archive.Truncate(before)
		if h.Typeflag == tar.TypeReg && before == 0 && len(data) > 0 { // the layer is mostly one file
			h.Size, c.packed = int64(len(data)), packed()
			writer = tar.NewWriter(&archive)
			_ = writer.WriteHeader(h) // a Buffer never fails, and it was written before
			_, _ = writer.Write(data)
			_ = writer.Flush()
		}
		break
	}
	if c.tar = archive.Bytes(); len(c.tar) == 0 {
		return errors.New("no entry of it is within the bytes that a sample may have")
	}
	return nil
}

// first returns the first part of a content, of about as many bytes as served.
func (c *content) first(packed int64) (*content, error) {
	share := float64(packed) / float64(max(c.packed, 1))
	few := &content{plain: c.plain}
	r := &counter{r: bytes.NewReader(c.tar[:min(int64(share*float64(len(c.tar))), int64(len(c.tar)))])}
	if err := few.entries(r, func() int64 { return r.n * c.packed / int64(len(c.tar)) }); err != nil {
		return nil, err
	}
	return few, nil
}

// An untilEnd reads until a context ends.
type untilEnd struct {
	ctx context.Context
	r   io.Reader
}

func (u untilEnd) Read(p []byte) (int, error) {
	if err := wait.Err(u.ctx); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// image makes an image of one layer that no engine has: of the content, and of a file with random bytes.
// Compressed it has another size than the beginning of the layer that it was made of, since it is
// compressed with less effort, which the engine does not notice: it is the bytes that come out that
// take it time.
func (c *content) image(ctx context.Context, ref string, platform v1.Platform) (*tarball.Image, tarball.Source, error) {
	var unique [32]byte
	_, _ = rand.Read(unique[:]) // never fails
	var own bytes.Buffer
	w := tar.NewWriter(&own)
	name := hex.EncodeToString(unique[:8])
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: ".advise-" + name, Mode: 0o600, Size: int64(len(unique))}); err != nil {
		return nil, nil, err
	}
	if _, err := w.Write(unique[:]); err != nil {
		return nil, nil, err
	}
	if err := w.Close(); err != nil { // and the end of the archive
		return nil, nil, err
	}
	level := gzip.BestSpeed
	if c.plain {
		level = gzip.NoCompression
	}
	var layer bytes.Buffer
	z, err := gzip.NewWriterLevel(&layer, level)
	if err != nil {
		return nil, nil, err
	}
	diff := sha256.New()
	unpacked := io.MultiWriter(z, diff)
	for _, part := range [][]byte{c.tar, own.Bytes()} {
		if _, err := io.Copy(unpacked, untilEnd{ctx, bytes.NewReader(part)}); err != nil {
			return nil, nil, err
		}
	}
	if err := z.Close(); err != nil {
		return nil, nil, err
	}
	config, err := json.Marshal(v1.ConfigFile{
		OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{{Algorithm: "sha256", Hex: hex.EncodeToString(diff.Sum(nil))}}},
	})
	if err != nil {
		return nil, nil, err
	}
	blobs := memory{}
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Size: int64(len(config)), Digest: blobs.add(config)},
		Layers: []v1.Descriptor{{MediaType: types.OCILayer, Size: int64(layer.Len()), Digest: blobs.add(layer.Bytes())}},
	})
	if err != nil {
		return nil, nil, err
	}
	img, err := tarball.NewImage(ref, manifest, config)
	return img, blobs, err
}

// memory is a source of blobs that are in memory.
type memory map[v1.Hash][]byte

func (m memory) add(content []byte) v1.Hash {
	sum := sha256.Sum256(content)
	h := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
	m[h] = content
	return h
}

// ReadRange implements [tarball.Source].
func (m memory) ReadRange(_ context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	content, ok := m[digest]
	if !ok || offset < 0 || length < 0 || offset > int64(len(content))-length {
		return nil, tarball.Permanent(errors.New("no such range"))
	}
	return io.NopCloser(bytes.NewReader(content[offset : offset+length])), nil
}
