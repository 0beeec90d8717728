package cache

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Tarball is a file that holds one image, as [Dir.Put] writes it.
type Tarball struct {
	// Path is where it was read from.
	Path string
	// Image is what it holds.
	Image *Image
	// Provenance says where the image came from.
	Provenance Provenance
	// Layout is the file's byte plan: where each layer is.
	Layout *Layout

	file os.FileInfo
}

// ReadTarball reads the beginning of the file at path, some KiB up to the first
// layer, and returns what it holds.
//
// It proves that manifest and config have their digests, that the beginning is
// byte by byte what the image's [Layout] plans, and that the file has the
// planned size. Layers are not read: [Tarball.Verify] does that. A file that
// fails the proof gives an error that wraps [ErrNotTarball]; other errors are
// the file system's, such as [fs.ErrNotExist].
func ReadTarball(path string) (*Tarball, error) { return readTarball(path, 0) }

// readTarball is [ReadTarball] with further flags for opening the file.
func readTarball(path string, flags int) (*Tarball, error) {
	f, err := openToRead(path, flags)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: not a regular file", path, ErrNotTarball)
	}
	t, err := readHead(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrNotTarball, err)
	}
	t.Path, t.file = path, info
	return t, nil
}

func readHead(f io.ReaderAt, size int64) (*Tarball, error) {
	entries := tar.NewReader(io.NewSectionReader(f, 0, size))
	if _, err := readEntry(entries, "oci-layout", 1<<10); err != nil {
		return nil, err
	}
	rawIndex, err := readEntry(entries, "index.json", 1<<20)
	if err != nil {
		return nil, err
	}
	desc, provenance, err := parseIndex(rawIndex)
	if err != nil {
		return nil, err
	}
	if _, err := readEntry(entries, "manifest.json", maxManifest); err != nil {
		return nil, err
	}
	for _, directory := range []string{"blobs/", "blobs/sha256/"} {
		if _, err := readEntry(entries, directory, 0); err != nil {
			return nil, err
		}
	}
	manifest, err := readEntry(entries, blobPath(desc.Digest), maxManifest)
	if err != nil {
		return nil, err
	}
	if got := sha256Of(manifest); got != desc.Digest {
		return nil, fmt.Errorf("the manifest has the digest %s, index.json says %s", got, desc.Digest)
	}
	// The config's name is known from the manifest, but NewImage checks its
	// bytes anyway, so any name will do here.
	config, err := readEntry(entries, "", maxConfig)
	if err != nil {
		return nil, err
	}
	img, err := NewImage(desc.Annotations[annotationRefName], manifest, config)
	if err != nil {
		return nil, err
	}
	layout, err := NewLayout(img, provenance)
	if err != nil {
		return nil, err
	}
	if size != layout.Size() {
		return nil, fmt.Errorf("%d bytes, its own layout needs %d", size, layout.Size())
	}
	head := make([]byte, len(layout.head()))
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, err
	}
	if !bytes.Equal(head, layout.head()) {
		return nil, errors.New("it begins differently from what its own layout plans")
	}
	return &Tarball{Image: img, Provenance: provenance, Layout: layout}, nil
}

// holds tells whether a tarball is that of an image under a reference.
func (t *Tarball) holds(digest v1.Hash, reference string) bool {
	return t.Image.Digest() == digest && t.Image.Reference() == reference
}

// readEntry reads the next entry, which must have this name (any, if empty) and
// at most limit bytes.
func readEntry(entries *tar.Reader, name string, limit int64) ([]byte, error) {
	h, err := entries.Next()
	if err != nil {
		return nil, fmt.Errorf("no entry %s: %w", name, err)
	}
	if name != "" && h.Name != name {
		return nil, fmt.Errorf("entry %q where %s should be", h.Name, name)
	}
	if h.Size > limit {
		return nil, fmt.Errorf("entry %q has %d bytes, more than %d", h.Name, h.Size, limit)
	}
	content, err := io.ReadAll(entries)
	if err != nil {
		return nil, fmt.Errorf("entry %q: %w", h.Name, err)
	}
	return content, nil
}

// Verify reads the whole file and proves that every byte is what the layout
// plans and that every layer has its digest. The error wraps [ErrReplaced] when
// another writer has published since the tarball was read. When bytes are wrong
// it is a [*DamageError] that names every layer with wrong ones, and wraps
// [ErrBlobDigest] for layers, [ErrNotTarball] for what is between them.
func (t *Tarball) Verify(ctx context.Context) error {
	return t.verify(ctx, func(int64) {})
}

// verify is [Tarball.Verify]; tell is told how many bytes were read.
func (t *Tarball) verify(ctx context.Context, tell func(n int64)) error {
	f, err := openToRead(t.Path, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	lockShared(f)
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !os.SameFile(info, t.file):
		return fmt.Errorf("%s: %w", t.Path, ErrReplaced)
	case info.Size() != t.Layout.Size():
		return fmt.Errorf("%s: %w: %d bytes, its own layout needs %d", t.Path, ErrNotTarball, info.Size(), t.Layout.Size())
	}
	damage := &DamageError{Path: t.Path}
	for _, s := range t.Layout.segments {
		section := &contextReader{ctx: ctx, f: f, at: s.Offset, end: s.Offset + s.Length, tell: tell}
		if !s.IsBlob() {
			have, err := io.ReadAll(section)
			if err != nil {
				return fmt.Errorf("%s: %w", t.Path, err)
			}
			if !bytes.Equal(have, s.Literal) {
				damage.add(fmt.Errorf("%w: the %d bytes at %d are not what its layout plans", ErrNotTarball, s.Length, s.Offset))
			}
			continue
		}
		got, err := hashOf(section)
		if err != nil {
			return fmt.Errorf("%s: layer %s: %w", t.Path, s.Blob, err)
		}
		if got != s.Blob {
			damage.Layers = append(damage.Layers, s.Blob)
			damage.add(fmt.Errorf("layer %s: %w: its bytes have the digest %s", s.Blob, ErrBlobDigest, got))
		}
	}
	return damage.orNil()
}

func hashOf(r io.Reader) (v1.Hash, error) {
	h := sha256.New()
	if _, err := io.CopyBuffer(h, r, make([]byte, hashBuffer)); err != nil {
		return v1.Hash{}, err
	}
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}, nil
}

// contextReader reads a part of a file and ends with the context's error: it would
// read to the end otherwise, tens of gigabytes. It tells how much was read.
type contextReader struct {
	ctx     context.Context
	f       io.ReaderAt
	at, end int64
	ahead   prefetch
	tell    func(n int64)
}

func (c *contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	if c.at == c.end {
		return 0, io.EOF
	}
	c.ahead.keep(c.f, c.at, c.end)
	n, err := c.f.ReadAt(p[:min(int64(len(p)), c.end-c.at)], c.at)
	if n > 0 {
		err = nil // it comes again
	}
	c.at += int64(n)
	c.tell(int64(n))
	return n, err
}
