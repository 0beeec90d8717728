package marks

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTarballOf(t *testing.T) {
	for name, want := range map[string]string{
		".a_main.tar.mark": "a_main.tar", ".a_main.tar.1000.mark": "a_main.tar", ".a.tar.tar.mark": "a.tar.tar", ".a\nb.tar.mark": "a\nb.tar",
		".7.tar.mark": "7.tar", ".a.7.tar.0.mark": "a.7.tar",
		"a_main.tar": "", "a_main.tar.mark": "", ".a_main.tar.lock": "", ".a_main.mark": "", ".a_main.tar.x.mark": "", "..tar.mark": "", ".a.tar.12345678901.mark": "",
	} {
		assert.Equal(t, want, TarballOf(name), name)
	}
}
