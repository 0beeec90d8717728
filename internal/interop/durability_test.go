package interop

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// No test can cut the power, but the kernel can be asked what it was told, and
// in which order: the file's bytes to the disk before it gets its final name,
// the name to the disk before success is reported.
func TestFlushedBeforeAndAfterTheRename(t *testing.T) {
	dir := t.TempDir()
	trace := filepath.Join(t.TempDir(), "trace")
	program := buildExample(t, "docker-cache")
	// A run that needs no registry of its own to be traced: the sample.
	out := run(t, "strace", "-f", "-y", "-o", trace, "-e", "trace=fsync,rename,renameat,renameat2,write", "-e", "signal=none",
		program, "-sample", "-jobs", "1", "-dir", dir)
	require.Contains(t, out, "stocked")

	content, err := os.ReadFile(trace)
	require.NoError(t, err)
	var events []string
	for line := range strings.Lines(string(content)) {
		for _, e := range []struct{ name, form string }{
			{"flush file", `fsync\(\d+<` + dir + `/\..*noble.*\.partial>`},
			{"rename", `rename\w*\(.*noble.*\.partial".*noble-rocm-n-py3_main\.tar"`},
			{"flush directory", `fsync\(\d+<` + dir + `>`},
			{"report", `write\(1<.*"stocked .*noble`},
		} {
			if regexp.MustCompile(e.form).MatchString(line) {
				events = append(events, e.name)
			}
		}
	}
	at := -1
	for i, e := range events {
		if e == "rename" {
			at = i
		}
	}
	require.Positive(t, at, "%v", events)
	assert.Equal(t, []string{"flush file", "rename", "flush directory", "report"}, events[at-1:at+3])
}
