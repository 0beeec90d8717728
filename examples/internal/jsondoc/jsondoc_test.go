package jsondoc

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type record struct {
	Name    string   `json:"name"`
	Seconds float64  `json:"seconds"`
	Dry     bool     `json:"dry_run"`
	Damaged []string `json:"damaged"`
	Layers  []struct {
		Bytes int64 `json:"bytes"`
	} `json:"layers"`
	Start int `json:"-"`
}

const good = "# x\n\n## other\n\n| `name` | integer | x |\n\n## program\n\n| field | type | |\n|---|---|---|\n| `name` | string | `a` or `b` |\n| `seconds` | number | x |\n" +
	"| `dry_run` | boolean | x |\n| `damaged` | list of strings | x |\n| `layers` | list of objects | x |\n| `layers[].bytes` | integer | x |\n\n## next\n\n| `c` | string | x |\n"

// errors is a [T] that keeps what is wrong.
type errors []string

func (*errors) Helper() {}

func (e *errors) Errorf(format string, args ...any) { *e = append(*e, fmt.Sprintf(format, args...)) }

func TestCheck(t *testing.T) {
	check := func(text string) (found errors) {
		file := filepath.Join(t.TempDir(), "JSON.md")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		Check(&found, file, "program", record{}, "a", "b")
		return found
	}
	assert.Empty(t, check(good))
	for old, changed := range map[string]string{
		"## program":                    "## Program",
		"| `seconds` | number |":        "| `seconds` | integer |",
		"| `dry_run` | boolean | x |\n": "",
		"`damaged`":                     "`damage`",
		"`layers[].bytes`":              "`layers.bytes`",
		"\n## next\n":                   "",
		"`a` or `b`":                    "`a`",
	} {
		require.Contains(t, good, old)
		assert.NotEmpty(t, check(strings.Replace(good, old, changed, 1)), old)
	}
	var found errors
	Check(&found, "missing.md", "program", record{})
	assert.NotEmpty(t, found)
}
