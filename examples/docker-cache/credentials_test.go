package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/command"
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
	assert.True(t, command.IsFile(file))
	assert.False(t, command.IsFile(w))
	assert.False(t, command.IsFile(&bytes.Buffer{}))

	t.Setenv("GITHUB_ACTIONS", "true")
	for _, quiet := range []bool{false, true} {
		p := newReport(&options{quiet: quiet}, file, file)
		assert.Nil(t, p.mask)
		p.Stop()
		p = newReport(&options{quiet: quiet}, file, w)
		assert.NotNil(t, p.mask)
		p.Stop()
	}
	t.Setenv("GITHUB_ACTIONS", "")
	p := newReport(&options{}, w, w)
	assert.Nil(t, p.mask, "nobody reads it")
	p.Stop()
}

// The order is documented.
func TestOrderOfKeychains(t *testing.T) {
	keychain, err := newKeychain(&options{}, nil, nil)
	require.NoError(t, err)
	var names []string
	for _, k := range keychain.(registry.Chain) {
		names = append(names, k.Name)
	}
	assert.Equal(t, []string{"AWS", "GITHUB_TOKEN", "Docker's config file"}, names)
}
