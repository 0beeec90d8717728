//go:build linux

package main

import (
	"archive/tar"
	"bytes"
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
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

type work struct {
	name   string
	layers int
	size   int64 // of a layer, in bytes
}

// works are the images to pull, in the shapes that matter: the one layer that is nearly the whole image,
// as in ROCm images; a few big ones, which a program can pull side by side; and
// many small ones, where the requests take the time.
var works = []work{
	{"giant", 1, 1 << 30},
	{"big", 4, 256 << 20},
	{"small", 40, 4 << 20},
}

// Images of the works that come in parts, see -slow and -refused.
var (
	single  = work{"single", 1, 160 << 20}
	dripped = work{"dripped", 1, 160 << 20}
	few     = work{"few", 5, 4 << 20}
)

func (w work) String() string {
	return fmt.Sprintf("%s (%d × %.4g MiB)", w.name, w.layers, mib(w.size))
}

// work returns one at the scale of this run.
func (o *options) work(name string) work {
	return o.scaled(works[slices.IndexFunc(works, func(w work) bool { return w.name == name })])
}

func (o *options) scaled(w work) work {
	w.size = max(int64(float64(w.size)*o.scale), 1)
	return w
}

// makeImages writes the images of all works as the files that the registry
// serves: blobs by digest, manifests by digest and by tag.
func (b *bench) makeImages() {
	for _, name := range b.works {
		b.makeImage(b.work(name))
	}
}

// makeImage makes an image, unless it was made already.
func (b *bench) makeImage(w work) {
	if _, err := os.Lstat(b.tagFile(w.name)); err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "making %s\n", w)
	var layers []layer
	for i := range w.layers {
		layers = append(layers, b.makeLayer(fmt.Sprintf("%s-%d", w.name, i), w.size))
	}
	b.makeTag(w.name, layers...)
}

// removeImage removes what makeImage made, but for the config.
func (b *bench) removeImage(w work) {
	manifest, err := os.ReadFile(b.tagFile(w.name))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	check(err)
	for _, l := range must(v1.ParseManifest(bytes.NewReader(manifest))).Layers {
		check(os.Remove(filepath.Join(b.scratch, blobName(l.Digest))))
	}
	check(os.Remove(b.tagFile(w.name)))
}

// free is how much more fits where images are.
func (b *bench) free() int64 {
	var s unix.Statfs_t
	check(unix.Statfs(b.scratch, &s))
	return int64(s.Bavail) * int64(s.Bsize)
}

// tagFile is the symbolic link from a tag to its manifest.
func (b *bench) tagFile(tag string) string { return filepath.Join(b.scratch, "tag-"+tag) }

// makeVersions makes the layers of images of as many bytes as the giant one: four
// that all have, and the last one of each, 5 %.
func (b *bench) makeVersions(kind string, write func(name string, size int64) layer, versions ...string) (base, last []layer) {
	size := b.work("giant").size
	for i := range 4 {
		base = append(base, write(fmt.Sprint(kind, "-base-", i), max(size*95/400, 1)))
	}
	for _, name := range versions {
		last = append(last, write(name, max(size*5/100, 1)))
	}
	return base, last
}

// makeTag writes the manifest and config of an image, and has the tag name it.
func (b *bench) makeTag(tag string, layers ...layer) {
	config := v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.DockerManifestSchema2}
	for _, l := range layers {
		manifest.Layers = append(manifest.Layers, l.Descriptor)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diffID)
	}
	manifest.Config = b.writeBlob(config, types.DockerConfigJSON)
	link := b.tagFile(tag)
	_ = os.Remove(link) // of a former image, if there is one
	check(os.Symlink(blobName(b.writeBlob(manifest, manifest.MediaType).Digest), link))
}

func (b *bench) writeBlob(value any, mediaType types.MediaType) v1.Descriptor {
	content := must(json.Marshal(value))
	digest, size, err := v1.SHA256(bytes.NewReader(content))
	check(err)
	check(os.WriteFile(filepath.Join(b.scratch, blobName(digest)), content, 0o600))
	return v1.Descriptor{MediaType: mediaType, Size: size, Digest: digest}
}

// blobName is the name of a blob's or manifest's file.
func blobName(digest v1.Hash) string { return "blob-" + digest.Hex }

func sum(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", h.Sum(nil))}
}

type layer struct {
	v1.Descriptor
	diffID v1.Hash
}

// makeLayer writes a gzip layer of about size bytes with one file, always the
// same for a name, that is b.ratio times as large. With a ratio of 1 the file is
// random and not compressed; this favours programs that unpack what they pull.
// Otherwise it is random text of few letters, which gzip's Huffman code packs to
// a known size, and which costs as much to unpack as real files do.
func (b *bench) makeLayer(name string, size int64) layer {
	level, letters := gzip.NoCompression, 256
	if b.ratio > 1 {
		level, letters = gzip.HuffmanOnly, int(math.Exp2(8/b.ratio))
	}
	left := int64(float64(size) * b.ratio)
	return b.writeLayer(name, level, func(t *tar.Writer, random *rand.ChaCha8, _ *os.File) {
		check(t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "opt/" + name, Mode: 0o644, Size: left}))
		for content := make([]byte, 1<<20); left > 0; left -= int64(len(content)) {
			content = content[:min(left, 1<<20)]
			must(random.Read(content))
			for i := range content {
				content[i] = byte(int(content[i]) % letters)
			}
			must(t.Write(content))
		}
	})
}

// writeLayer writes the layer that fill puts into an archive. Random numbers are
// the same for a name; what is packed so far is in the file.
func (b *bench) writeLayer(name string, level int, fill func(t *tar.Writer, random *rand.ChaCha8, packed *os.File)) layer {
	f := must(os.CreateTemp(b.scratch, "layer"))
	defer f.Close()
	packed, unpacked := sha256.New(), sha256.New()
	z := must(gzip.NewWriterLevel(io.MultiWriter(f, packed), level))
	t := tar.NewWriter(io.MultiWriter(z, unpacked))
	var seed [32]byte
	copy(seed[:], name)
	fill(t, rand.NewChaCha8(seed), f)
	check(errors.Join(t.Close(), z.Close()))
	l := layer{v1.Descriptor{MediaType: types.DockerLayer, Size: must(f.Stat()).Size(), Digest: sum(packed)}, sum(unpacked)}
	check(os.Rename(f.Name(), filepath.Join(b.scratch, blobName(l.Digest))))
	return l
}

// makeFilesLayer writes a gzip layer of about size bytes with many files that
// compress, always the same for a name. It costs an engine what real ones do: to
// unpack, and to write file by file. The mean of a ROCm image's files is 100 to 500
// KiB. Of these words gzip's default level makes 2.6 to 1, by matches as much as by
// short codes, as of real libraries.
func (b *bench) makeFilesLayer(name string, size int64) layer {
	return b.writeLayer(name, gzip.DefaultCompression, func(t *tar.Writer, source *rand.ChaCha8, packed *os.File) {
		random := rand.New(source)
		var words [1 << 11][]byte
		for i := range words {
			words[i] = make([]byte, 2+random.IntN(15))
			for j := range words[i] {
				words[i][j] = byte(random.Uint32())
			}
		}
		content := make([]byte, 256<<10)
		for i := 0; must(packed.Seek(0, io.SeekCurrent)) < size; i++ {
			for n := 0; n < len(content); {
				// The first words are taken more often than the last.
				r := random.Uint64()
				n += copy(content[n:], words[int(r&0xffff)%len(words)*(int(r>>16&0xff)+1)>>8])
			}
			check(t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("opt/%s/%d/%d", name, i/100, i), Mode: 0o644, Size: int64(len(content))}))
			must(t.Write(content))
		}
	})
}
