// Package depcheck has no code, only tests: they keep the packages of this
// module as independent as they are promised to be.
package depcheck

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	module = "github.com/dockercache/dockercache"
	root   = "../.."
)

type goPackage struct {
	ImportPath string
	Imports    []string // direct
	Deps       []string // all, transitively; of the package itself, not its tests
}

func list(t *testing.T, patterns ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps"}, patterns...)...)
	cmd.Dir = root
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

// inside reports whether path is the package dir of this module or below it.
func inside(path, dir string) bool {
	return path == module+"/"+dir || strings.HasPrefix(path, module+"/"+dir+"/")
}

// No package of the four, and no package below one, depends on another of them.
// What they share is in internal, which must not depend on one either.
func TestPackagesAreIndependent(t *testing.T) {
	four := []string{"artifacts", "cache", "registry", "tagging"}
	found := 0
	for _, p := range list(t, "./artifacts/...", "./cache/...", "./registry/...", "./tagging/...") {
		own := slices.IndexFunc(four, func(dir string) bool { return inside(p.ImportPath, dir) })
		found++
		for _, dep := range p.Deps {
			for i, dir := range four {
				assert.False(t, i != own && inside(dep, dir), "%s depends on %s", p.ImportPath, dep)
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
		"cache":                 {"net/http", "github.com/aws/"},
		"cache/atomicfile":      {"net", "net/http", "github.com/google/", module + "/cache/tarball"},
		"cache/history":         {"net", "net/http", "github.com/google/", module + "/cache", module + "/cache/tarball"},
		"cache/internal/fetch":  {"net/http", module + "/cache", module + "/cache/atomicfile"},
		"cache/internal/sys":    {"net", "net/http", "github.com/google/"},
		"cache/tarball":         {"net/http", module + "/cache", module + "/cache/atomicfile", module + "/cache/internal/fetch"},
		"registry":              {"github.com/aws/", "testing"},
		"artifacts/workflow":    {"net/http", "github.com/hashicorp/", "golang.org/x/text/"},
		"examples/tarball-name": {"net/http", "github.com/hashicorp/", "golang.org/x/text/"},
		"internal/metrics":      {"net", "net/http"},
		"examples/internal/cli": {"net/http", "github.com/hashicorp/", "golang.org/x/text/"},
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
	const refname = module + "/internal/refname"
	for _, dir := range []string{"./tagging", "./internal/refname"} {
		assert.Subset(t, []string{"errors", "fmt", "regexp", "strings", "github.com/distribution/reference", refname}, list(t, dir)[0].Imports, dir)
	}
}

// A fetch writes into a sink that it is given: it names no file.
func TestFetchKnowsNoPaths(t *testing.T) {
	assert.NotContains(t, list(t, "./cache/internal/fetch")[0].Imports, "path/filepath")
}

// Locks are the directory's: package tarball takes none, on any system.
func TestTarballTakesNoLocks(t *testing.T) {
	assert.Empty(t, uses(t, "cache/tarball", "TryLock", "LockShared", "InUse"))
	assert.NotEmpty(t, uses(t, "cache", "TryLock", "LockShared", "InUse"), "the search finds them")
}

// uses returns where the sources of a package, without its tests, use functions of
// cache/internal/sys.
func uses(t *testing.T, dir string, functions ...string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	var found []string
	positions := token.NewFileSet()
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(positions, path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains(functions, s.Sel.Name) {
				if pkg, ok := s.X.(*ast.Ident); ok && pkg.Name == "sys" {
					found = append(found, positions.Position(s.Pos()).String())
				}
			}
			return true
		})
	}
	return found
}
