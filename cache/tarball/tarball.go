package tarball

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/internal/imagespec"
)

// An Info is what the beginning of a tarball says, as [Read] checks it.
type Info struct {
	// Image is the image in it.
	Image *Image
	// Provenance says where the image came from.
	Provenance Provenance
	// Layout is the byte plan: where each layer is.
	Layout *Layout
}

// Sources returns where the image can be found again, as REPOSITORY@DIGEST: where it was
// resolved, if that is recorded, and its own repository. The digest makes sure that it is
// this image.
func (i *Info) Sources() []string {
	var sources []string
	for _, ref := range []string{i.Provenance.Source, i.Image.Reference()} {
		named, err := reference.ParseNormalizedNamed(ref)
		if err != nil { // a note, which is not verified
			continue
		}
		if source := named.Name() + "@" + i.Image.Digest().String(); !slices.Contains(sources, source) {
			sources = append(sources, source)
		}
	}
	return sources
}

// A Tarball is an open tarball. It stays what it is when another file takes its name,
// or when it is removed: on a local file system it can be read to its end. It is a
// [Source] of its layers. It is safe for concurrent use.
type Tarball struct {
	Info
	name string
	r    io.ReaderAt
}

// Open opens the file at path and reads its beginning, as [Read] does. Close must be
// called in the end. The errors are those of Read and of the file system.
func Open(path string) (*Tarball, error) {
	f, err := sys.OpenToRead(path, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w: not a regular file", path, ErrNotTarball)
	}
	var t *Tarball
	if err == nil {
		t, err = Read(f, info.Size(), path)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return t, nil
}

// Read reads the beginning of a tarball of size bytes, some KiB up to the first
// layer. name is what errors call it.
//
// It verifies that manifest and config have their digests, that the beginning is
// byte by byte what the image's [Layout] plans, and that the tarball has the
// planned size. Layers are not read: [Tarball.Verify] does that. What does not hold
// gives an error that wraps [ErrNotTarball], and the error of r if there was one.
//
// The tarball reads from r as long as it is in use; r must be safe for concurrent
// use. What [FileReader] says of r holds.
func Read(r io.ReaderAt, size int64, name string) (*Tarball, error) {
	if r == nil {
		return nil, fmt.Errorf("%s: %w: there is no reader", name, ErrNotTarball)
	}
	info, err := readInfo(r, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrNotTarball, err)
	}
	return &Tarball{Info: *info, name: name, r: r}, nil
}

// errNotOpen is for a Tarball that neither Open nor Read has made.
var errNotOpen = Permanent(fmt.Errorf("%w: it was made by neither Open nor Read", ErrNotTarball))

// Name returns what errors call the tarball: of an open file, its path.
func (t *Tarball) Name() string { return t.name }

// Close closes what the tarball reads from, if that is an [io.Closer]. Reads fail
// afterwards.
func (t *Tarball) Close() error {
	if t == nil {
		return nil
	}
	if c, ok := t.r.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func readInfo(r io.ReaderAt, size int64) (*Info, error) {
	entries := tar.NewReader(io.NewSectionReader(r, 0, size))
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
	if got := imagespec.DigestOf(manifest); got != desc.Digest {
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
	indexes, err := readIndexes(entries, img)
	if err != nil {
		return nil, err
	}
	if err := img.addIndexes(indexes); err != nil {
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
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, err
	}
	if !bytes.Equal(head, layout.head()) {
		return nil, errors.New("it begins differently from what its own layout plans")
	}
	return &Info{Image: img, Provenance: provenance, Layout: layout}, nil
}

// readIndexes reads the entries between the config and the first layer.
func readIndexes(entries *tar.Reader, img *Image) ([][]byte, error) {
	layers := img.parsed.Layers
	var indexes [][]byte
	for {
		h, err := entries.Next()
		if err == io.EOF || err == nil && len(layers) > 0 && h.Name == blobPath(layers[0].Digest) {
			return indexes, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the entry after the config: %w", err)
		}
		if len(indexes) == maxIndexes {
			return nil, fmt.Errorf("entry %q where the first layer should be", h.Name)
		}
		raw, err := readContent(entries, h, maxManifest)
		if err != nil {
			return nil, err
		}
		indexes = append(indexes, raw)
	}
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
	return readContent(entries, h, limit)
}

// readContent reads an entry of at most limit bytes.
func readContent(entries *tar.Reader, h *tar.Header, limit int64) ([]byte, error) {
	if h.Size > limit {
		return nil, fmt.Errorf("entry %q has %d bytes, more than %d", h.Name, h.Size, limit)
	}
	content, err := io.ReadAll(entries)
	if err != nil {
		return nil, fmt.Errorf("entry %q: %w", h.Name, err)
	}
	return content, nil
}

// Verify reads the whole tarball and verifies that every byte is what the layout
// plans and that every layer has its digest. When bytes are wrong the error is a
// [*DamageError] that names every layer with wrong ones, and wraps [ErrDigest] for
// layers, [ErrNotTarball] for what is between them. Other errors are those of reading
// and of ctx.
//
// progress, when not nil, is called with how many bytes were read since the call
// before.
func (t *Tarball) Verify(ctx context.Context, progress func(n int64)) error {
	if t == nil || t.r == nil {
		return errNotOpen
	}
	if f := sys.FileOf(t.r); f != nil {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if info.Size() != t.Layout.Size() {
			return fmt.Errorf("%s: %w: %d bytes, its own layout needs %d", t.name, ErrNotTarball, info.Size(), t.Layout.Size())
		}
	}
	damage := &DamageError{Path: t.name}
	for _, s := range t.Layout.segments {
		section := &section{ctx: ctx, r: t.r, at: s.Offset, end: s.Offset + s.Length, progress: progress}
		if !s.IsBlob() {
			have, err := io.ReadAll(section)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			if !bytes.Equal(have, s.Literal) {
				damage.add(fmt.Errorf("%w: the %d bytes at %d are not what its layout plans", ErrNotTarball, s.Length, s.Offset))
			}
			continue
		}
		sum := sha256.New()
		if _, err := io.CopyBuffer(sum, section, make([]byte, sys.HashBuffer)); err != nil {
			return fmt.Errorf("%s: layer %s: %w", t.name, s.Blob, err)
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != s.Blob.Hex {
			damage.Layers = append(damage.Layers, s.Blob)
			damage.add(fmt.Errorf("layer %s: %w: its bytes have the digest sha256:%s", s.Blob, ErrDigest, got))
		}
	}
	return damage.orNil()
}

// A DamageError says everything that is wrong in a file that begins as a
// tarball. It wraps [ErrDigest] if that is in layers, and [ErrNotTarball] if
// it is in the headers between them; both may be.
type DamageError struct {
	// Path is the tarball's name, see [Tarball.Name].
	Path string
	// Layers are those with wrong bytes, in the order in which they are in the
	// file. There is none when only headers are wrong.
	Layers []v1.Hash

	all []error
}

func (e *DamageError) Error() string {
	texts := make([]string, len(e.all))
	for i, err := range e.all {
		texts[i] = err.Error()
	}
	return e.Path + ": " + strings.Join(texts, "; ")
}

// Unwrap returns what is wrong, one error for each place.
func (e *DamageError) Unwrap() []error { return e.all }

func (e *DamageError) add(err error) { e.all = append(e.all, err) }

func (e *DamageError) orNil() error {
	if len(e.all) == 0 {
		return nil
	}
	return e
}
