package tarball

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/sys"
)

// A Segment is a run of a tarball's bytes: either known already (Literal) or
// the whole of one layer (Blob).
type Segment struct {
	// Offset is where the segment begins in the tarball, in bytes.
	Offset int64
	// Length is how many bytes it has. It is 0 only for an empty layer.
	Length int64
	// Literal holds the bytes; nil for a layer. Not to be modified.
	Literal []byte
	// Blob is the layer's digest; zero for a literal segment.
	Blob v1.Hash
}

// IsBlob reports whether the segment is a layer.
func (s Segment) IsBlob() bool { return s.Blob != v1.Hash{} }

// A Layout is the exact byte plan of a tarball, made without any layer at hand.
// It is immutable and safe for concurrent use. The same image and provenance give the
// same bytes.
type Layout struct {
	segments []Segment
	size     int64
}

// NewLayout plans the tarball of img.
func NewLayout(img *Image, p Provenance) (*Layout, error) {
	return newLayout(img, p, func(v1.Hash) bool { return false })
}

// newLayout is [NewLayout] without the layers that are to be left out.
func newLayout(img *Image, p Provenance, omit func(layer v1.Hash) bool) (*Layout, error) {
	if img == nil || img.digest == (v1.Hash{}) {
		return nil, fmt.Errorf("%w: it is empty, not one of NewImage", ErrInvalidImage)
	}
	index, err := json.Marshal(newIndex(img, p))
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	docker, err := json.Marshal(newDockerManifest(img))
	if err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	var b layoutBuilder
	// Docker looks for manifest.json, everybody else for oci-layout and
	// index.json. All of them come first, with manifest and config, so that
	// the first few KiB identify the image.
	b.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	b.file("index.json", index)
	b.file("manifest.json", docker)
	// skopeo (1.9) makes a directory that has no entry of its own belong to root,
	// or fails where it may not.
	b.header("blobs/", 0, false)
	b.header("blobs/sha256/", 0, false)
	b.file(blobPath(img.digest), img.manifest)
	b.file(blobPath(img.parsed.Config.Digest), img.config)
	for n, raw := range img.indexes {
		b.file(blobPath(img.indexDigests[n]), raw)
	}
	seen := map[v1.Hash]bool{}
	for _, l := range img.parsed.Layers {
		if !seen[l.Digest] && !omit(l.Digest) { // a second entry of the same name breaks loaders
			seen[l.Digest] = true
			b.layer(l)
		}
	}
	b.literal(tarTrailer())
	b.flush()
	if b.err != nil {
		return nil, b.err
	}
	return &Layout{segments: b.segments, size: b.offset}, nil
}

// Size returns the size of the whole tarball in bytes.
func (l *Layout) Size() int64 { return l.size }

// Segments returns the segments in order. They cover the tarball without gap
// or overlap; literal and layer need not alternate.
func (l *Layout) Segments() []Segment { return slices.Clone(l.segments) }

// Layers returns the segments that are layers, in order.
func (l *Layout) Layers() []Segment {
	return slices.DeleteFunc(slices.Clone(l.segments), func(s Segment) bool { return !s.IsBlob() })
}

// Layer returns the segment of a layer, if there is one.
func (l *Layout) Layer(digest v1.Hash) (Segment, bool) {
	for _, s := range l.segments {
		if s.IsBlob() && s.Blob == digest {
			return s, true
		}
	}
	return Segment{}, false
}

// head returns the literal bytes before the first layer: what identifies the
// image.
func (l *Layout) head() []byte { return l.segments[0].Literal }

type layoutBuilder struct {
	segments []Segment
	pending  []byte // literal bytes that end at offset
	offset   int64
	err      error
}

func (b *layoutBuilder) literal(p []byte) {
	b.pending = append(b.pending, p...)
	b.offset += int64(len(p))
}

func (b *layoutBuilder) flush() {
	if n := int64(len(b.pending)); n > 0 {
		b.segments = append(b.segments, Segment{Offset: b.offset - n, Length: n, Literal: b.pending})
		b.pending = nil
	}
}

func (b *layoutBuilder) header(name string, size int64, align bool) {
	h, err := tarHeader(name, size, b.offset, align)
	if err != nil && b.err == nil {
		b.err = err
	}
	b.literal(h)
}

func (b *layoutBuilder) file(name string, content []byte) {
	b.header(name, int64(len(content)), false)
	b.literal(content)
	b.literal(tarPadding(int64(len(content))))
}

func (b *layoutBuilder) layer(d v1.Descriptor) {
	b.header(blobPath(d.Digest), d.Size, true)
	b.flush()
	b.segments = append(b.segments, Segment{Offset: b.offset, Length: d.Size, Blob: d.Digest})
	b.offset += d.Size
	b.literal(tarPadding(d.Size))
}

// tarBlock is the unit of a tar archive.
const tarBlock = 512

// tarHeader renders the header of an entry, a directory if name ends in "/", that begins at the
// offset at of the archive. With align its data begins at a multiple of [sys.Align],
// since copy_file_range shares extents only between such offsets: a PAX comment of the
// right length stands before the header. Every loader that was tried skips it, whereas
// padding files would be copied into the engines' stores.
//
// archive/tar renders, always: from 8 GiB on the size needs a PAX record too,
// and a header of another length.
func tarHeader(name string, size, at int64, align bool) ([]byte, error) {
	if !align {
		return renderHeader(name, size, "")
	}
	tries := []int{0, 1} // bytes of comment
	for i := 0; i < len(tries); i++ {
		h, err := renderHeader(name, size, strings.Repeat(" ", tries[i]))
		past := int((at + int64(len(h))) % sys.Align)
		if err != nil || past == 0 {
			return h, err
		}
		if i != 1 {
			continue
		}
		// Each further 512 bytes of comment move the data one block on, so this many
		// are needed; unless on the way the record's own length field gets one digit
		// longer, and with it the record one block: then the first that does. The bytes
		// of a tarball must be the same each time.
		tries = append(tries, 1+sys.Align-past)
		for more := tarBlock; more <= sys.Align; more += tarBlock {
			tries = append(tries, 1+more)
		}
	}
	return nil, fmt.Errorf("tar header of %s at %d: no comment aligns the data", name, at)
}

func renderHeader(name string, size int64, comment string) ([]byte, error) {
	h := tar.Header{
		Typeflag: tar.TypeReg,
		Name:     name,
		Size:     size,
		Mode:     0o644,
		Format:   tar.FormatPAX,
	}
	if strings.HasSuffix(name, "/") {
		h.Typeflag, h.Mode = tar.TypeDir, 0o755
	}
	if comment != "" {
		h.PAXRecords = map[string]string{"comment": comment}
	}
	var buf bytes.Buffer
	if err := tar.NewWriter(&buf).WriteHeader(&h); err != nil {
		return nil, fmt.Errorf("tar header of %s: %w", name, err)
	}
	return buf.Bytes(), nil
}

// tarPadding returns the zeros that follow size bytes of data.
func tarPadding(size int64) []byte {
	return make([]byte, -size&(tarBlock-1))
}

// tarTrailer is the end of an archive: two empty blocks.
func tarTrailer() []byte { return make([]byte, 2*tarBlock) }
