package sys

import (
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParts(t *testing.T) {
	f := create(t, []byte("0123456789"))
	var p, other Parts
	assert.Zero(t, p.Done())
	part := p.Next(f, 2, 5)
	theirs := other.Next(f, 0, 10)
	got := make([]byte, 3)
	for _, c := range []struct {
		part *io.LimitedReader
		want string
	}{{part, "234"}, {theirs, "012"}} { // each has its own offset
		_, err := io.ReadFull(c.part, got)
		require.NoError(t, err)
		assert.Equal(t, c.want, string(got))
	}
	require.IsType(t, &os.File{}, part.R)
	assert.EqualValues(t, 3, p.Done())
	assert.Zero(t, p.Done(), "it is counted")

	// With another name the file cannot be opened again; a descriptor that there is remains.
	require.NoError(t, os.Rename(f.Name(), f.Name()+".old"))
	require.NoError(t, os.WriteFile(f.Name(), []byte("other"), 0o600))
	var late Parts
	assert.Nil(t, late.Next(f, 0, 5))
	assert.Nil(t, late.Next(nil, 0, 5))
	again, err := io.ReadAll(p.Next(f, 5, 5))
	require.NoError(t, err)
	assert.Equal(t, "56789", string(again))
	for _, p := range []*Parts{&p, &other, &late} {
		p.Close()
		p.Close()
	}
	require.ErrorIs(t, part.R.(*os.File).Close(), os.ErrClosed)
}
