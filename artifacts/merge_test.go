package artifacts_test

import (
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/artifacts/artifactstest"
)

func archive(t *testing.T, id int64, name string, files map[string]string) *artifacts.Archive {
	t.Helper()
	a, err := artifacts.NewArchive(artifacts.Artifact{ID: id, Name: name}, artifactstest.Zip(files), artifacts.Limits{})
	require.NoError(t, err)
	return a
}

func TestMerge(t *testing.T) {
	b := archive(t, 1, "b", map[string]string{"b.txt": "b", "same.txt": "same", "d/x": "1"})
	a := archive(t, 2, "a", map[string]string{"a.txt": "a", "same.txt": "same", "d/y": "2"})
	m, err := artifacts.Merge([]*artifacts.Archive{b, a}, nil)
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(m, "a.txt", "b.txt", "same.txt", "d/x", "d/y"))
	var from []string
	for _, f := range m.Files {
		from = append(from, f.Path+" "+f.From.Name)
		assert.Empty(t, f.Overridden)
	}
	assert.Equal(t, []string{"a.txt a", "b.txt b", "d/x b", "d/y a", "same.txt a"}, from)
}

func TestMergeConflicts(t *testing.T) {
	for name, c := range map[string]struct {
		a, b map[string]string
		kind error
		says string
	}{
		"content":     {map[string]string{"x": "1"}, map[string]string{"x": "2"}, artifacts.ErrConflict, `merge artifact "b": conflicting artifacts: "x" is different in artifact "a"`},
		"case":        {map[string]string{"x": "1"}, map[string]string{"X": "1"}, artifacts.ErrArchive, `"x" and "X" are the same name`},
		"composition": {map[string]string{"\u00e9": "1"}, map[string]string{"e\u0301": "1"}, artifacts.ErrArchive, "the same name"},
		"directory":   {map[string]string{"x": "1"}, map[string]string{"x/y": "1"}, artifacts.ErrArchive, `"x" is a file and a directory; one of them is from artifact "a"`},
	} {
		archives := []*artifacts.Archive{archive(t, 1, "b", c.b), archive(t, 2, "a", c.a)}
		m, err := artifacts.Merge(archives, nil)
		require.ErrorIs(t, err, c.kind, name)
		assert.ErrorContains(t, err, c.says, name)
		assert.Nil(t, m)
		if name != "content" {
			_, err = artifacts.Merge(archives, &artifacts.MergeOptions{LastWins: true})
			require.ErrorIs(t, err, c.kind, "no file wins over danger")
		}
	}
}

// The last is the last by name and ID, not in the order of arguments.
func TestMergeLastWins(t *testing.T) {
	archives := []*artifacts.Archive{
		archive(t, 3, "b", map[string]string{"x": "b3"}),
		archive(t, 9, "a", map[string]string{"x": "a9"}),
		archive(t, 2, "b", map[string]string{"x": "b2"}),
	}
	m, err := artifacts.Merge(archives, &artifacts.MergeOptions{LastWins: true})
	require.NoError(t, err)
	content, err := fs.ReadFile(m, "x")
	require.NoError(t, err)
	assert.Equal(t, "b3", string(content))
	assert.Equal(t, int64(3), m.Files[0].From.ID)
	assert.Equal(t, []artifacts.Artifact{{ID: 9, Name: "a"}, {ID: 2, Name: "b"}}, m.Files[0].Overridden)
	assert.Equal(t, int64(3), archives[0].Artifact.ID, "the argument is left as it is")
}

func TestMergeLimits(t *testing.T) {
	archives := []*artifacts.Archive{archive(t, 1, "a", map[string]string{"x": "123"}), archive(t, 2, "b", map[string]string{"y": "456"})}
	_, err := artifacts.Merge(archives, &artifacts.MergeOptions{Limits: artifacts.Limits{TotalBytes: 5}})
	require.ErrorIs(t, err, artifacts.ErrLimit)
	_, err = artifacts.Merge(archives, &artifacts.MergeOptions{Limits: artifacts.Limits{Entries: 1}})
	require.ErrorIs(t, err, artifacts.ErrLimit)
}

func merged(t *testing.T, files map[string]string) *artifacts.MergedDir {
	t.Helper()
	m, err := artifacts.Merge([]*artifacts.Archive{archive(t, 1, "a", files)}, nil)
	require.NoError(t, err)
	return m
}

func TestWriteDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	require.NoError(t, merged(t, map[string]string{"a.txt": "1", "d/e/f": "2"}).WriteDir(dir))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other"), []byte("mine"), 0o600))
	require.NoError(t, merged(t, map[string]string{"a.txt": "changed"}).WriteDir(dir))
	assert.Equal(t, map[string]string{"a.txt": "changed", "d/e/f": "2", "other": "mine"}, tree(t, dir))
}

// tree is all that is below a directory.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			content, _ := os.ReadFile(filepath.Join(dir, p))
			found[p] = string(content)
		}
		return err
	}))
	return found
}

// Links that another process put into the directory lead nowhere.
func TestWriteDirStaysInside(t *testing.T) {
	base := t.TempDir()
	outside, dir := filepath.Join(base, "outside"), filepath.Join(base, "dir")
	require.NoError(t, os.MkdirAll(outside, 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "isdir"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(outside, "file"), []byte("before"), 0o644))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "away")))
	require.NoError(t, os.Symlink("../outside", filepath.Join(dir, "relative")))
	require.NoError(t, os.Symlink(filepath.Join(outside, "file"), filepath.Join(dir, "link")))
	for _, path := range []string{"away/new", "away/file", "relative/new", "isdir", "zfile/x"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "zfile"), nil, 0o644))
		err := merged(t, map[string]string{"0first": "x", path: "evil"}).WriteDir(dir)
		require.Error(t, err, path)
		assert.NoFileExists(t, filepath.Join(dir, "0first"), "all is checked before anything is written")
	}
	// A link to a file is replaced, not followed.
	require.NoError(t, merged(t, map[string]string{"link": "new"}).WriteDir(dir))
	assert.Equal(t, map[string]string{"file": "before"}, tree(t, outside))
	info, err := os.Lstat(filepath.Join(dir, "link"))
	require.NoError(t, err)
	assert.True(t, info.Mode().IsRegular())
}

// What is found to be in the way leaves everything as it was.
func TestWriteDirFails(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("before"), 0o644))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "b"), 0o755))
	require.Error(t, merged(t, map[string]string{"a": "new", "b": "new"}).WriteDir(dir))
	assert.Equal(t, map[string]string{"a": "before"}, tree(t, dir))
	require.Error(t, merged(t, map[string]string{"a": "new"}).WriteDir(filepath.Join(dir, "a")))
}

// A write that fails in the middle, as on a full disk, leaves the old file and
// no temporary one.
func TestWriteDirOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b"), []byte("before"), 0o644))
	m := merged(t, map[string]string{"a": "small", "b": strings.Repeat("random?", 1000), "d/c": "never"})
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 4096, Max: limit.Max}))
	err := m.WriteDir(dir)
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
	require.ErrorIs(t, err, syscall.EFBIG)
	assert.Equal(t, map[string]string{"a": "small", "b": "before"}, tree(t, dir))
}
