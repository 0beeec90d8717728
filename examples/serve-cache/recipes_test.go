package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The README has each recipe as the file is. The tests of package interop run those of
// engines that there are.
func TestRecipes(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	paths, err := filepath.Glob("recipes/*")
	require.NoError(t, err)
	require.Len(t, paths, 6)
	for _, path := range paths {
		recipe, err := os.ReadFile(path)
		require.NoError(t, err)
		kind := strings.NewReplacer(".conf", "toml", ".", "").Replace(filepath.Ext(path))
		assert.Contains(t, string(readme), "```"+kind+"\n"+string(recipe)+"```\n", path)
	}
}
