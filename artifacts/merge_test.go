package artifacts_test

import (
	"io/fs"
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
		assert.Empty(t, f.Over)
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
	assert.Equal(t, []artifacts.Artifact{{ID: 9, Name: "a"}, {ID: 2, Name: "b"}}, m.Files[0].Over)
	assert.Equal(t, int64(3), archives[0].Artifact.ID, "the argument is left as it is")
}

func TestMergeLimits(t *testing.T) {
	archives := []*artifacts.Archive{archive(t, 1, "a", map[string]string{"x": "123"}), archive(t, 2, "b", map[string]string{"y": "456"})}
	_, err := artifacts.Merge(archives, &artifacts.MergeOptions{Limits: artifacts.Limits{TotalBytes: 5}})
	require.ErrorIs(t, err, artifacts.ErrLimit)
	_, err = artifacts.Merge(archives, &artifacts.MergeOptions{Limits: artifacts.Limits{Entries: 1}})
	require.ErrorIs(t, err, artifacts.ErrLimit)
}
