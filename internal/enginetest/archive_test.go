package enginetest

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestApply(t *testing.T) {
	file := func(name, content string) entry { return entry{name, true, []byte(content)} }
	files := map[string]string{}
	layer{file("etc/a", "1"), file("etc/b", "1"), file("var/x/y", "1"), file("opt", "1")}.apply(files)
	layer{file("etc/a", "2"), file("etc/.wh.b", ""), file("var/.wh.x", ""), file("etc/c", "2")}.apply(files)
	assert.Equal(t, map[string]string{"etc/a": "2", "etc/c": "2", "opt": "1"}, files)
	layer{file("etc/d", "3"), file("etc/.wh..wh..opq", "")}.apply(files)
	assert.Equal(t, map[string]string{"etc/d": "3", "opt": "1"}, files)
}
