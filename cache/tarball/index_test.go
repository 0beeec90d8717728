package tarball

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRunNewerThan(t *testing.T) {
	for _, c := range []struct {
		a, b Run
		want bool
	}{
		{Run{2, 1}, Run{1, 1}, true},
		{Run{1, 2}, Run{1, 1}, true},
		{Run{2, 1}, Run{1, 9}, true},
		{Run{1, 1}, Run{1, 1}, false},
		{Run{1, 9}, Run{2, 1}, false},
		{Run{}, Run{1, 1}, false},
		{Run{1, 1}, Run{}, false},
		{Run{}, Run{}, false},
	} {
		assert.Equal(t, c.want, c.a.NewerThan(c.b), "%v %v", c.a, c.b)
	}
}
