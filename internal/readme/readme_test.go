// Package readme has no code, only tests: they keep the README true.
package readme

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}

// dedent takes the indentation off each line, so that code in a function and in
// the README compare equal.
func dedent(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}

// Every piece of Go in the README stands in an example that is compiled and run.
func TestCodeIsCompiled(t *testing.T) {
	examples, err := filepath.Glob("../../*/example_test.go")
	require.NoError(t, err)
	below, err := filepath.Glob("../../*/*/example_test.go")
	require.NoError(t, err)
	examples = append(examples, below...)
	var compiled strings.Builder
	for _, path := range examples {
		compiled.WriteString(dedent(read(t, path)))
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(read(t, "../../README.md"), -1)
	assert.GreaterOrEqual(t, len(blocks), 2)
	for _, block := range blocks {
		assert.Contains(t, compiled.String(), dedent(block[1]))
	}
}

// Every direct dependency is named in the README, and no other.
func TestDependenciesAreNamed(t *testing.T) {
	direct := regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllStringSubmatch(read(t, "../../go.mod"), -1)
	require.NotEmpty(t, direct)
	_, table, found := strings.Cut(read(t, "../../README.md"), "## Dependencies")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n## ")
	for _, m := range direct {
		assert.Contains(t, table, m[1])
	}
	assert.Len(t, regexp.MustCompile(`[a-z]+\.[a-z]+/\S+?/[^\s,|]+|golang\.org/x/\w+`).FindAllString(table, -1), len(direct))
}

// Every file and directory that the documents link to is there.
func TestLinksLeadSomewhere(t *testing.T) {
	documents := []string{"../../README.md", "../../CONTRIBUTING.md", "../../CHANGELOG.md"}
	programs, err := filepath.Glob("../../examples/*/README.md")
	require.NoError(t, err)
	require.Len(t, programs, 8, "one for each program")
	for _, document := range append(documents, programs...) {
		for _, m := range regexp.MustCompile(`\]\(([^)#]+)?(#[^)]+)?\)`).FindAllStringSubmatch(read(t, document), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := filepath.Join(filepath.Dir(document), m[1])
			if m[1] == "" {
				target = document
			}
			assert.FileExists(t, target, document)
			if m[2] != "" {
				assert.Contains(t, anchors(read(t, target)), m[2], document)
			}
		}
	}
}

// A README that is longer is not read.
func TestReadmeIsShort(t *testing.T) {
	assert.LessOrEqual(t, len(strings.Fields(read(t, "../../README.md"))), 1300)
}

// anchors returns those of a document's headings, as GitHub makes them.
func anchors(markdown string) []string {
	var found []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(markdown, -1) {
		text := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		found = append(found, "#"+strings.ReplaceAll(text, " ", "-"))
	}
	return found
}
