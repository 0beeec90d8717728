package tarball

import (
	"archive/tar"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/internal/imagespec"
	"github.com/dockercache/dockercache/internal/testtool"
)

// planned is a tarball that is only planned: literal bytes where the layout has
// them, zeros in place of layers. It lets the tar reader see images of any size.
type planned struct{ *Layout }

func (p planned) ReadAt(buf []byte, off int64) (int, error) {
	clear(buf)
	n := int(min(int64(len(buf)), p.size-off))
	for _, s := range p.segments {
		for i := max(off, s.Offset); !s.IsBlob() && i < min(off+int64(n), s.Offset+s.Length); i++ {
			buf[i-off] = s.Literal[i-s.Offset]
		}
	}
	if n < len(buf) {
		return n, io.EOF
	}
	return n, nil
}

type entry struct {
	tar.Header
	offset  int64 // of the data
	content []byte
}

// entriesOf reads a planned tarball with archive/tar; contents only of what is
// not a layer.
func entriesOf(t *testing.T, l *Layout) []entry {
	t.Helper()
	section := io.NewSectionReader(planned{l}, 0, l.Size())
	r := tar.NewReader(section)
	var all []entry
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		require.NoError(t, err)
		offset, err := section.Seek(0, io.SeekCurrent)
		require.NoError(t, err)
		e := entry{Header: *h, offset: offset}
		if len(all) < 7 {
			e.content, err = io.ReadAll(r)
			require.NoError(t, err)
		}
		all = append(all, e)
	}
}

func sized(seed string, size int64) v1.Descriptor {
	return v1.Descriptor{MediaType: types.DockerLayer, Digest: imagespec.DigestOf([]byte(seed)), Size: size}
}

func mustLayout(t testing.TB, img *Image) *Layout {
	t.Helper()
	l, err := NewLayout(img, Provenance{Source: "ghcr.io/pytorch/ci-image:name-2f5e", Branch: "main"})
	require.NoError(t, err)
	return l
}

func TestLayoutEntries(t *testing.T) {
	a, b := sized("a", 1000), sized("b", 5000)
	img := testImage(t, a, b, a)
	entries := entriesOf(t, mustLayout(t, img))

	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
		if strings.HasSuffix(e.Name, "/") {
			assert.EqualValues(t, tar.TypeDir, e.Typeflag, e.Name)
			assert.EqualValues(t, 0o755, e.Mode, e.Name)
			continue
		}
		assert.EqualValues(t, tar.TypeReg, e.Typeflag, e.Name)
		assert.EqualValues(t, 0o644, e.Mode, e.Name)
	}
	assert.Equal(t, []string{
		"oci-layout", "index.json", "manifest.json", "blobs/", "blobs/sha256/",
		blobPath(img.Digest()), blobPath(img.parsed.Config.Digest),
		blobPath(a.Digest), blobPath(b.Digest), // the repeated layer once
	}, names)

	assert.JSONEq(t, `{"imageLayoutVersion":"1.0.0"}`, string(entries[0].content))
	assert.JSONEq(t, `{
		"schemaVersion": 2,
		"mediaType": "application/vnd.oci.image.index.v1+json",
		"manifests": [{
			"mediaType": "application/vnd.docker.distribution.manifest.v2+json",
			"digest": "`+img.Digest().String()+`",
			"size": `+json.Number(marshalInt(len(img.manifest))).String()+`,
			"annotations": {
				"io.containerd.image.name": "`+cachetest.Ref+`",
				"org.opencontainers.image.ref.name": "`+cachetest.Ref+`"
			}
		}],
		"annotations": {
			"io.github.dockercache.source": "ghcr.io/pytorch/ci-image:name-2f5e",
			"io.github.dockercache.branch": "main"
		}
	}`, string(entries[1].content))
	assert.JSONEq(t, `[{
		"Config": "`+blobPath(img.parsed.Config.Digest)+`",
		"RepoTags": ["`+cachetest.Ref+`"],
		"Layers": ["`+blobPath(a.Digest)+`", "`+blobPath(b.Digest)+`", "`+blobPath(a.Digest)+`"]
	}]`, string(entries[2].content))
	assert.Equal(t, img.Manifest(), entries[5].content)
	assert.Equal(t, img.Config(), entries[6].content)
}

func marshalInt(n int) string { b, _ := json.Marshal(n); return string(b) }

func TestLayoutSegmentsCoverTheTarball(t *testing.T) {
	img := testImage(t, sized("a", 1), sized("b", 0), sized("c", 512), sized("d", 513), sized("e", 20<<30))
	layout := mustLayout(t, img)
	var at int64
	for _, s := range layout.Segments() {
		require.Equal(t, at, s.Offset)
		if !s.IsBlob() {
			require.Len(t, s.Literal, int(s.Length))
		}
		at += s.Length
	}
	require.Equal(t, layout.Size(), at)
	require.Zero(t, layout.Size()%tarBlock)
}

// Whatever stands before it, a layer's data begins where extents can be shared,
// below and above the 8 GiB from which on the header is a longer one.
func TestLayerDataIsAligned(t *testing.T) {
	for before := range int64(12) {
		for _, size := range []int64{1, 4096, 8<<30 - 1, 8 << 30, 18_600_000_000} {
			first := sized("first", before*tarBlock+before)
			layout := mustLayout(t, testImage(t, first, sized("second", size), sized("third", 7)))
			entries := entriesOf(t, layout)
			for _, e := range entries[7:] {
				assert.Zero(t, e.offset%sys.Align, "%s at %d", e.Name, e.offset)
			}
			assert.Equal(t, size, entries[8].Size)
			assert.Equal(t, int64(7), entries[9].Size, "the entry behind the big one is found")
		}
	}
}

func TestLayoutIsDeterministic(t *testing.T) {
	img := testImage(t, sized("a", 1000), sized("b", 9<<30))
	assert.Equal(t, mustLayout(t, img), mustLayout(t, img))
}

// The bytes of the plan are a format that other versions of this package read:
// a change of it makes every stocked tarball count as absent. So it is pinned.
func TestLayoutBytesArePinned(t *testing.T) {
	layout := mustLayout(t, testImage(t, sized("a", 1000), sized("b", 9<<30)))
	var literals []byte
	for _, s := range layout.Segments() {
		literals = append(literals, s.Literal...)
	}
	assert.Equal(t, "sha256:b6b1f1328b852dbaf23aaf367cc370e3d2dee59b6e64d11515dcdcf1900f0504", imagespec.DigestOf(literals).String())
	assert.EqualValues(t, 9663693824, layout.Size())
}

// GNU tar must read it too, past the layer of more than 8 GiB.
func TestGNUTarListsLayout(t *testing.T) {
	program := testtool.Need(t, "tar")
	layout := mustLayout(t, testImage(t, sized("a", 1000), sized("b", 9<<30), sized("c", 7)))
	path := filepath.Join(t.TempDir(), "x.tar")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(layout.Size())) // sparse: layers are zeros
	for _, s := range layout.Segments() {
		_, err := f.WriteAt(s.Literal, s.Offset)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	out, err := exec.Command(program, "-tf", path).CombinedOutput()
	require.NoError(t, err, string(out))
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Len(t, lines, 10)
	assert.Equal(t, blobPath(imagespec.DigestOf([]byte("c"))), lines[9])
}

func TestImageWithoutLayers(t *testing.T) {
	entries := entriesOf(t, mustLayout(t, testImage(t)))
	require.Len(t, entries, 7)
	assert.Contains(t, string(entries[2].content), `"Layers":[]`)
}

// An image that [NewImage] did not make has no plan.
func TestNewLayoutRefuses(t *testing.T) {
	for _, img := range []*Image{nil, {}} {
		_, err := NewLayout(img, Provenance{})
		require.ErrorIs(t, err, ErrInvalidImage)
	}
}
