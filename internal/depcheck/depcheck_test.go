// Package depcheck has no code, only tests: they keep the packages of this
// module as independent as they are promised to be.
package depcheck

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/dockercache/dockercache"

type goPackage struct {
	ImportPath string
	Imports    []string // direct
	Deps       []string // all, transitively; of the package itself, not its tests
}

func list(t *testing.T, patterns ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps"}, patterns...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	require.NoError(t, err)
	var packages []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p goPackage
		require.NoError(t, d.Decode(&p))
		packages = append(packages, p)
	}
	return packages
}

// inside tells whether path is the package dir of this module or below it.
func inside(path, dir string) bool {
	return path == module+"/"+dir || strings.HasPrefix(path, module+"/"+dir+"/")
}

// No package of the four, and no package below one, depends on another of them:
// what a reader imports stands alone.
func TestPackagesAreIndependent(t *testing.T) {
	four := []string{"artifacts", "cache", "registry", "tagging"}
	found := 0
	for _, p := range list(t, "./artifacts/...", "./cache/...", "./registry/...", "./tagging/...") {
		own := four[slices.IndexFunc(four, func(dir string) bool { return inside(p.ImportPath, dir) })]
		found++
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, module) {
				assert.True(t, inside(dep, own) || inside(dep, "internal"), "%s depends on %s", p.ImportPath, dep)
			}
		}
	}
	assert.GreaterOrEqual(t, found, len(four))
}

// What the packages must not cost their importers.
func TestPackagesAreLean(t *testing.T) {
	for dir, forbidden := range map[string][]string{
		"tagging":               {"net", "net/http", "github.com/google/", "github.com/aws/"},
		"artifacts":             {"github.com/aws/"},
		"artifacts/workflow":    {"net/http", "github.com/hashicorp/", "golang.org/x/text/"},
		"examples/tarball-name": {"net/http", "github.com/hashicorp/", "golang.org/x/text/"},
		"internal/command":      {"net/http"},
		"cache":                 {"net/http", "github.com/aws/"},
		"registry":              {"github.com/aws/", "testing"},
	} {
		p := list(t, "./"+dir)[0]
		for _, dep := range p.Deps {
			for _, f := range forbidden {
				if dep == f || (strings.HasSuffix(f, "/") && strings.HasPrefix(dep, f)) {
					t.Errorf("%s depends on %s", p.ImportPath, dep)
				}
			}
		}
	}
}

// Pure functions: what tagging imports itself opens no file and reads no clock.
// (fmt depends on os all the same.)
func TestTaggingIsPure(t *testing.T) {
	assert.Subset(t, []string{"errors", "fmt", "regexp", "strings", "github.com/distribution/reference"}, list(t, "./tagging")[0].Imports)
}
