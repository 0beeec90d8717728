package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
)

// What a runner does not read must not hold the secrets that it is asked to hide.
func TestMasksAreNotForFiles(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	defer file.Close()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	assert.True(t, isFile(file))
	assert.False(t, isFile(w))
	assert.False(t, isFile(&bytes.Buffer{}))
	assert.True(t, isFile(noProgress{}.above(file)), "seen behind what is above the progress")
	assert.True(t, isFile((&lines{}).above(file)))
	assert.True(t, isFile((&bars{}).above(file)))
}

// A secret cannot end the command and begin another one.
func TestMaskCommand(t *testing.T) {
	assert.Equal(t, "::add-mask::a%250Ab%0D%0A::notice::c\n", maskCommand("a%0Ab\r\n::notice::c"))
}

// The order is documented.
func TestOrderOfKeychains(t *testing.T) {
	keychain, err := newKeychain(&options{}, nil, &bytes.Buffer{})
	require.NoError(t, err)
	var names []string
	for _, k := range keychain.(registry.Chain) {
		names = append(names, k.Name)
	}
	assert.Equal(t, []string{"AWS", "GITHUB_TOKEN", "Docker's config file"}, names)
}
