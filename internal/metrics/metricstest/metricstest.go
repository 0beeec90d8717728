// Package metricstest compares what programs tell Prometheus with what is documented.
package metricstest

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	help = regexp.MustCompile(`(?m)^# HELP (\S+) (.*)$`)
	kind = regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`)
	row  = regexp.MustCompile("(?m)^\\| `(\\S+)` \\| (counter|gauge) \\| [^|]* \\| (.*) \\|$")
)

// Documented says that examples/METRICS.md has all that is in text, and no more, in the section of
// a program.
func Documented(t testing.TB, program, text string) {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	require.True(t, ok)
	document, err := os.ReadFile(filepath.Join(filepath.Dir(file), "../../../examples/METRICS.md"))
	require.NoError(t, err)
	_, section, found := strings.Cut(string(document), "\n## "+program+"\n")
	require.True(t, found, "there is no section %s", program)
	section, _, _ = strings.Cut(section, "\n## ")
	kinds := map[string]string{}
	for _, m := range kind.FindAllStringSubmatch(text, -1) {
		kinds[m[1]] = m[2]
	}
	said := map[string][2]string{}
	for _, m := range help.FindAllStringSubmatch(text, -1) {
		said[m[1]] = [2]string{kinds[m[1]], m[2]}
	}
	documented := map[string][2]string{}
	for _, m := range row.FindAllStringSubmatch(section, -1) {
		documented[m[1]] = [2]string{m[2], m[3]}
	}
	require.NotEmpty(t, said)
	assert.Equal(t, documented, said, "examples/METRICS.md, section %s", program)
}
