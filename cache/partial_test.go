package cache

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/fetch"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

func TestSweepPartials(t *testing.T) {
	dir := t.TempDir()
	const name = "name_main.tar"
	create := func() *os.File {
		f, err := sys.CreateTemp(dir, name+".0123456789ab", partialKind, 0o666)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(f.Name()+journalKind, nil, 0o666))
		return f
	}
	dead, alive, young := create(), create(), create()
	defer alive.Close()
	require.NoError(t, dead.Close())
	require.NoError(t, young.Close())
	other, err := sys.CreateTemp(dir, "name_release.tar.0123456789ab", partialKind, 0o666)
	require.NoError(t, err)
	require.NoError(t, other.Close())
	orphan := filepath.Join(dir, "."+name+".0123456789ab.x."+partialKind+journalKind)
	require.NoError(t, os.WriteFile(orphan, nil, 0o666))
	require.NoError(t, os.Symlink(filepath.Join(dir, "target"), filepath.Join(dir, "."+name+".x."+partialKind)))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "target"), nil, 0o644))

	now := time.Now()
	past := now.Add(-sys.AbandonedAfter)
	for _, f := range []*os.File{dead, alive, other} {
		require.NoError(t, os.Chtimes(f.Name(), past, past))
	}
	sweepPartials(dir, name, now)

	assert.NoFileExists(t, dead.Name(), "no process holds it and it is old")
	assert.NoFileExists(t, dead.Name()+journalKind)
	assert.FileExists(t, alive.Name(), "its writer is alive")
	assert.FileExists(t, alive.Name()+journalKind)
	assert.FileExists(t, young.Name(), "another attempt may adopt it")
	assert.FileExists(t, young.Name()+journalKind)
	assert.FileExists(t, other.Name(), "another tarball's")
	assert.NoFileExists(t, orphan, "a journal of nothing")
	assert.FileExists(t, filepath.Join(dir, "target"))
	sweepPartials(filepath.Join(dir, "missing"), name, now) // nothing to do
}

func TestAdopt(t *testing.T) {
	dir := t.TempDir()
	src := cachetest.Blobs{}
	layer := src.Add(cachetest.Noise(1, 1000))
	img := testImage(t, layer)
	layout := mustLayout(t, img)

	first, err := openPartial(dir, "name_main.tar", img.Digest(), layout)
	require.NoError(t, err)
	assert.Empty(t, first.done)
	first.journal.Add(layer.Digest, 100, 200)
	first.journal.Add(layer.Digest, 200, 300)

	second, err := openPartial(dir, "name_main.tar", img.Digest(), layout)
	require.NoError(t, err)
	assert.NotEqual(t, first.file.Name(), second.file.Name(), "the first is alive: it keeps its file")
	second.discard = true
	second.close()

	was := first.file.Name()
	first.close()
	third, err := openPartial(dir, "name_main.tar", img.Digest(), layout)
	require.NoError(t, err)
	assert.NotEqual(t, was, third.file.Name(), "another name: the old owner, should it live, cannot publish it")
	assert.NoFileExists(t, was)
	assert.Equal(t, []sys.Interval{{From: 100, To: 300}}, third.done[layer.Digest])
	third.close()

	// From another mirror: the layers are at the same places.
	mirror, err := tarball.NewLayout(img, tarball.Provenance{Source: "somewhere/else:t"})
	require.NoError(t, err)
	again, err := openPartial(dir, "name_main.tar", img.Digest(), mirror)
	require.NoError(t, err)
	assert.Equal(t, []sys.Interval{{From: 100, To: 300}}, again.done[layer.Digest])
	again.close()

	// In another layout of the same image they are not.
	other, err := tarball.NewLayout(img, tarball.Provenance{Source: strings.Repeat("x", sys.Align)})
	require.NoError(t, err)
	fourth, err := openPartial(dir, "name_main.tar", img.Digest(), other)
	require.NoError(t, err)
	assert.Empty(t, fourth.done)
	fourth.discard = true
	fourth.close()
	assert.Empty(t, names(t, dir))
}

// After a clock was set back, what a dead writer left seems to come from the
// future. It is of use all the same.
func TestAdoptFromTheFuture(t *testing.T) {
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 1000)))
	dir := openTestDir(t)
	layout := mustLayout(t, img)
	p, err := openPartial(dir.Path(), "name_main.tar", img.Digest(), layout)
	require.NoError(t, err)
	_, err = p.file.WriteAt(src[img.Layers()[0].Digest], layout.Layers()[0].Offset)
	require.NoError(t, err)
	p.journal.Add(img.Layers()[0].Digest, 0, 1000)
	future := time.Now().AddDate(1, 0, 0)
	require.NoError(t, os.Chtimes(p.file.Name(), future, future))
	p.close()
	result, err := dir.Put(t.Context(), "name_main.tar", img, none, nil)
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome)
	assert.Equal(t, []string{"name_main.tar"}, names(t, dir.Path()))
}

// Whatever is in the place of a partial file or its journal is not followed, not
// waited for and not written to.
func TestAdoptThatIsHostile(t *testing.T) {
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 1000)))
	for name, put := range map[string]func(path, elsewhere string) error{
		"a link for a partial file": func(path, elsewhere string) error { return os.Symlink(elsewhere, path) },
		"a pipe for a partial file": func(path, _ string) error { return unix.Mkfifo(path, 0o666) },
		"a directory for one":       func(path, _ string) error { return os.Mkdir(path, 0o755) },
		"a link for a journal": func(path, elsewhere string) error {
			return errors.Join(os.WriteFile(path, nil, 0o666), os.Symlink(elsewhere, path+journalKind))
		},
		"a link to a journal without end": func(path, _ string) error {
			return errors.Join(os.WriteFile(path, nil, 0o666), os.Symlink("/dev/zero", path+journalKind))
		},
		"a pipe for a journal": func(path, _ string) error {
			return errors.Join(os.WriteFile(path, nil, 0o666), unix.Mkfifo(path+journalKind, 0o666))
		},
	} {
		dir := openTestDir(t)
		elsewhere := filepath.Join(t.TempDir(), "file")
		var journal bytes.Buffer
		all := map[v1.Hash][]sys.Interval{img.Layers()[0].Digest: {{From: 0, To: 1000}}}
		_, err := fetch.NewJournal(&journal, mustLayout(t, img), "", all)
		require.NoError(t, err)
		whole := journal.String()
		require.Contains(t, whole, img.Layers()[0].Digest.Hex+" 0 1000\n")
		require.NoError(t, os.WriteFile(elsewhere, []byte(whole), 0o644))
		path := filepath.Join(dir.Path(), sys.UniqueName("name_main.tar."+img.Digest().Hex[:12], partialKind))
		require.NoError(t, put(path, elsewhere), name)
		result, err := dir.Put(t.Context(), "name_main.tar", img, src, nil)
		require.NoError(t, err, name)
		assert.EqualValues(t, 1000, result.Downloaded, name)
		assert.Equal(t, whole, content(t, elsewhere), name)
		requireStocked(t, dir, "name_main.tar")
	}
}
