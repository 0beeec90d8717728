package cache

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What Put would do is known from a digest and a reference.
func TestCheck(t *testing.T) {
	dir, img, src, path := stocked(t)
	result, err := dir.Check("name_main.tar", img.Digest(), img.Reference(), nil)
	require.NoError(t, err)
	tarball, err := ReadTarball(path)
	require.NoError(t, err)
	assert.Equal(t, &Result{Outcome: Unchanged, Path: path, Total: tarball.Layout.Size()}, result)
	_, used := readMark(dir.Path(), "name_main.tar")
	assert.False(t, used.IsZero(), "it was used")

	other := v1.Hash{Algorithm: "sha256", Hex: "00"}
	for _, c := range []struct {
		name, ref string
		digest    v1.Hash
	}{
		{"name_main.tar", img.Reference(), other},
		{"name_main.tar", "example.com/other:1", img.Digest()},
		{"absent_main.tar", img.Reference(), img.Digest()},
	} {
		result, err := dir.Check(c.name, c.digest, c.ref, nil)
		require.NoError(t, err)
		assert.Empty(t, result.Outcome, c.name)
	}

	for _, o := range []*PutOptions{{Verify: true}, {Rewrite: true}} {
		result, err = dir.Check("name_main.tar", img.Digest(), img.Reference(), o)
		require.NoError(t, err)
		assert.Empty(t, result.Outcome, "only its beginning was read")
	}

	_, err = dir.Put(t.Context(), "name_main.tar", img, src, &PutOptions{Provenance: Provenance{Run: Run{ID: 7}}})
	require.NoError(t, err)
	result, err = dir.Check("name_main.tar", other, img.Reference(), &PutOptions{Provenance: Provenance{Run: Run{ID: 6}}})
	require.NoError(t, err)
	assert.Equal(t, Superseded, result.Outcome, "run 7 has found it unchanged")

	_, err = dir.Check("../x.tar", other, img.Reference(), nil)
	require.ErrorIs(t, err, ErrName)
	_, err = dir.Check("x.tar", other, "a b", nil)
	require.ErrorIs(t, err, ErrImage)
}
