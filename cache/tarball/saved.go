package tarball

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/internal/imagespec"
)

// ErrOtherImage is wrapped when an archive does not have the image that was asked for.
var ErrOtherImage = errors.New("the archive does not have the image")

// OpenSaved opens the archive at path that "docker save" or "podman save" has written, as
// it is or compressed with gzip, as the tarball of the image that has this reference in it.
// Close must be called in the end.
//
// The image's config, and with it Docker's ID, is the archive's. Its manifest is too where
// the archive contains it, as from Docker 25 on; else one is made, of layers that are not
// compressed, and its digest is no registry's. Layers are read from the archive, and have
// digests to be verified by, so a damaged one never becomes an image. The archive must be
// complete when it is opened; from a compressed one each layer is read by decompressing
// all that is before it.
//
// The error wraps [ErrNotTarball] when the file is no such archive, or not a whole one,
// [ErrOtherImage] when the archive has no image with the reference (what it has is in the
// text), [ErrInvalidImage], or is that of the file system.
func OpenSaved(path, ref string) (*Tarball, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: reference %q: %w", path, ErrInvalidImage, ref, err)
	}
	f, err := sys.OpenToRead(path, 0)
	if err != nil {
		return nil, err
	}
	t, err := readSaved(f, named.String())
	if err != nil {
		_ = f.Close()
		if !errors.Is(err, ErrOtherImage) && !errors.Is(err, ErrInvalidImage) {
			err = fmt.Errorf("%w, nor a whole one of docker save: %w", ErrNotTarball, err)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	t.name = path
	return t, nil
}

func readSaved(f *os.File, ref string) (*Tarball, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	s := &saved{Closer: f, r: f}
	entries := io.Reader(io.NewSectionReader(f, 0, info.Size()))
	magic := make([]byte, 6)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, info.Size()), magic); err != nil {
		return nil, fmt.Errorf("%d bytes: %w", info.Size(), err)
	}
	switch compression(magic) {
	case "":
	case "gzip":
		z := &gzipReaderAt{file: io.NewSectionReader(f, 0, info.Size())}
		s.r = z
		entries = &sequential{r: z}
	default:
		return nil, fmt.Errorf("it is compressed with %s, which is not supported: decompress it", compression(magic))
	}
	if err := s.scan(entries); err != nil {
		return nil, err
	}
	image, err := s.image(ref)
	if err != nil {
		return nil, err
	}
	t := &Tarball{Info: Info{Image: image}, r: s}
	if t.Layout, err = NewLayout(image, Provenance{}); err != nil {
		return nil, err
	}
	s.segments = t.Layout.segments
	return t, nil
}

// compression returns what a file is compressed with that begins so, "" if it is not.
func compression(magic []byte) string {
	for name, begins := range map[string]string{"gzip": "\x1f\x8b", "zstd": "\x28\xb5\x2f\xfd", "bzip2": "BZh", "xz": "\xfd7zXZ\x00"} {
		if bytes.HasPrefix(magic, []byte(begins)) {
			return name
		}
	}
	return ""
}

// saved is an archive of docker save. It is read as if it were the tarball that its image
// has the [Layout] of.
type saved struct {
	io.Closer
	r        io.ReaderAt // the archive, decompressed
	files    map[string]savedFile
	links    map[string]string
	segments []Segment
	layers   map[v1.Hash]savedFile
}

// savedFile is where a file is in the archive.
type savedFile struct {
	offset, size int64
	magic        [6]byte // its first bytes
}

// maxSavedFiles is how many files an archive may have: three for each layer, and some.
const maxSavedFiles = 1 << 16

// scan finds all files of the archive, to its end.
func (s *saved) scan(r io.Reader) error {
	s.files, s.links = map[string]savedFile{}, map[string]string{}
	entries := tar.NewReader(r)
	for {
		h, err := entries.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d files: %w", len(s.files), err)
		}
		if len(s.files)+len(s.links) == maxSavedFiles {
			return fmt.Errorf("more than %d files", maxSavedFiles)
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			// A tar.Reader reads no further than the header.
			file := savedFile{size: h.Size}
			if file.offset, err = r.(io.Seeker).Seek(0, io.SeekCurrent); err != nil {
				return err
			}
			if _, err := io.ReadFull(entries, file.magic[:]); err != nil && h.Size >= int64(len(file.magic)) {
				return fmt.Errorf("file %q: %w", h.Name, err)
			}
			s.files[name] = file
		case tar.TypeSymlink: // a layer that is in the archive already
			s.links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			s.links[name] = path.Clean(h.Linkname)
		}
	}
}

// file returns where a file is, which may be a link's.
func (s *saved) file(name string) (savedFile, error) {
	at := path.Clean(name)
	for range 8 {
		if f, ok := s.files[at]; ok {
			return f, nil
		}
		at = s.links[at]
	}
	return savedFile{}, fmt.Errorf("there is no file %q in it", name)
}

func (s *saved) read(name string, limit int64) ([]byte, error) {
	f, err := s.file(name)
	if err != nil {
		return nil, err
	}
	if f.size > limit {
		return nil, fmt.Errorf("file %q has %d bytes, more than %d", name, f.size, limit)
	}
	content := make([]byte, f.size)
	if _, err := io.ReadFull(io.NewSectionReader(s.r, f.offset, f.size), content); err != nil {
		return nil, fmt.Errorf("file %q: %w", name, err)
	}
	return content, nil
}

// savedImage is an entry of manifest.json
// (https://github.com/moby/docker-image-spec/blob/main/v1.2.md).
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// image returns the image with the reference, and notes where its layers are.
func (s *saved) image(ref string) (*Image, error) {
	if s.isOurs() {
		return nil, errors.New("it is one of this cache, and damaged")
	}
	entry, err := s.entry(ref)
	if err != nil {
		return nil, err
	}
	config, err := s.read(entry.Config, maxConfig)
	if err != nil {
		return nil, err
	}
	digest := imagespec.DigestOf(config)
	// docker save and podman save name it by its digest.
	if name := strings.TrimSuffix(path.Base(entry.Config), ".json"); len(name) == len(digest.Hex) && name != digest.Hex {
		return nil, fmt.Errorf("config %s: %w: its bytes have the digest %s", entry.Config, ErrDigest, digest)
	}
	if image, err := s.withOwnManifest(ref, config, digest); image != nil || err != nil {
		return image, err
	}
	parsed, err := imagespec.Config(config)
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", entry.Config, err)
	}
	diffIDs := parsed.DiffIDs
	if len(diffIDs) != len(entry.Layers) {
		return nil, fmt.Errorf("config %s lists %d layers, manifest.json %d", entry.Config, len(diffIDs), len(entry.Layers))
	}
	manifest := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Size: int64(len(config)), Digest: digest},
		Layers: []v1.Descriptor{},
	}
	s.layers = map[v1.Hash]savedFile{}
	for i, name := range entry.Layers {
		f, err := s.file(name)
		if err != nil {
			return nil, err
		}
		layer, err := s.layer(name, f, diffIDs[i])
		if err != nil {
			return nil, err
		}
		manifest.Layers = append(manifest.Layers, layer)
		s.layers[layer.Digest] = f
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		return nil, err
	}
	return NewImage(ref, raw, config)
}

// isOurs reports whether the archive is a tarball of this package, which only [Read] may
// judge: its annotations are those of newIndex. docker save gives the tag alone as a name.
func (s *saved) isOurs() bool {
	raw, err := s.read("index.json", maxManifest)
	if err != nil {
		return false
	}
	d, _, err := parseIndex(raw)
	name := d.Annotations[annotationRefName]
	return err == nil && strings.Contains(name, "/") && name == d.Annotations[annotationContainerdName]
}

// entry returns that of manifest.json with the reference.
func (s *saved) entry(ref string) (savedImage, error) {
	raw, err := s.read("manifest.json", maxManifest)
	if err != nil {
		return savedImage{}, err
	}
	var all []savedImage
	if err := json.Unmarshal(raw, &all); err != nil {
		return savedImage{}, fmt.Errorf("manifest.json: %w", err)
	}
	others := map[string]bool{}
	for _, entry := range all {
		for _, tag := range entry.RepoTags {
			if named, err := reference.ParseNormalizedNamed(tag); err == nil && named.String() == ref {
				return entry, nil
			}
			others[tag] = true
		}
	}
	has := "images without a name"
	if len(others) > 0 {
		has = strings.Join(slices.Sorted(maps.Keys(others)), ", ")
	}
	return savedImage{}, fmt.Errorf("%w %s: it has %s", ErrOtherImage, ref, has)
}

// withOwnManifest returns the image with the manifest in the archive that is of this config,
// nil if there is none with all its layers.
func (s *saved) withOwnManifest(ref string, config []byte, digest v1.Hash) (*Image, error) {
	raw, err := s.read("index.json", maxManifest)
	if err != nil {
		return nil, nil
	}
	var index v1.IndexManifest
	if json.Unmarshal(raw, &index) != nil {
		return nil, nil
	}
	for _, d := range index.Manifests {
		manifest, err := s.read(blobPath(d.Digest), maxManifest)
		if err != nil || imagespec.DigestOf(manifest) != d.Digest {
			continue
		}
		image, err := NewImage(ref, manifest, config)
		if err != nil || image.ConfigDigest() != digest {
			continue
		}
		s.layers = map[v1.Hash]savedFile{}
		for _, l := range image.Layers() {
			f, err := s.file(blobPath(l.Digest))
			if err != nil {
				return nil, err
			}
			if f.size != l.Size {
				return nil, fmt.Errorf("layer %s: %w: %d bytes, its manifest declares %d", l.Digest, ErrSize, f.size, l.Size)
			}
			s.layers[l.Digest] = f
		}
		return image, nil
	}
	return nil, nil
}

// layer describes the layer in a file. Uncompressed, its digest is its diff ID; compressed
// it may be the file's name, as in an OCI layout, or has to be made.
func (s *saved) layer(name string, f savedFile, diffID v1.Hash) (v1.Descriptor, error) {
	d := v1.Descriptor{MediaType: types.OCIUncompressedLayer, Size: f.size, Digest: diffID}
	switch compression(f.magic[:]) {
	case "gzip":
		d.MediaType = types.OCILayer
	case "zstd":
		d.MediaType = types.OCILayerZStd
	default:
		return d, nil
	}
	if hexed, ok := strings.CutPrefix(path.Clean(name), "blobs/sha256/"); ok {
		var err error
		d.Digest, err = imagespec.Digest("sha256:" + hexed)
		return d, err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(s.r, f.offset, f.size)); err != nil {
		return d, fmt.Errorf("file %q: %w", name, err)
	}
	d.Digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	return d, nil
}

// ReadAt implements [io.ReaderAt] for the tarball that the archive is read as.
func (s *saved) ReadAt(p []byte, off int64) (n int, err error) {
	i := sort.Search(len(s.segments), func(i int) bool { return s.segments[i].Offset+s.segments[i].Length > off })
	for ; n < len(p) && i < len(s.segments); i++ {
		segment := s.segments[i]
		within := off + int64(n) - segment.Offset
		if !segment.IsBlob() {
			n += copy(p[n:], segment.Literal[within:])
			continue
		}
		want := min(int64(len(p)-n), segment.Length-within)
		got, err := s.r.ReadAt(p[n:n+int(want)], s.layers[segment.Blob].offset+within)
		n += got
		if int64(got) < want {
			return n, errors.Join(err, io.ErrUnexpectedEOF)
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
