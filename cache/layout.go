package cache

import (
	"encoding/json"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
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

// IsBlob tells whether the segment is a layer.
func (s Segment) IsBlob() bool { return s.Blob != v1.Hash{} }

// A Layout is the exact byte plan of a tarball, made without any layer at hand.
// It is immutable, and the same image and provenance give the same bytes.
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
	// the first few KiB tell what the file is.
	b.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	b.file("index.json", index)
	b.file("manifest.json", docker)
	// skopeo (1.9) makes a directory that has no entry of its own belong to root,
	// or fails where it may not.
	b.header("blobs/", 0, false)
	b.header("blobs/sha256/", 0, false)
	b.file(blobPath(img.digest), img.manifest)
	b.file(blobPath(img.parsed.Config.Digest), img.config)
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

// layers returns the segments that are layers.
func (l *Layout) layers() []Segment {
	return slices.DeleteFunc(slices.Clone(l.segments), func(s Segment) bool { return !s.IsBlob() })
}

// layer returns the segment of a layer, if there is one.
func (l *Layout) layer(digest v1.Hash) (Segment, bool) {
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
