package history

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// write writes a file of lines into a directory.
func write(t testing.TB, dir, name string, lines ...string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(strings.Join(lines, "")), 0o600))
}

// record returns a line of a time after noon, of a host.
func record(t testing.TB, host string, after time.Duration) string {
	t.Helper()
	r := stock()
	r.Host, r.Time = host, noon.Add(after)
	line, err := r.line(noon)
	require.NoError(t, err)
	return string(line)
}

func hosts(records []Record) (all []string) {
	for _, r := range records {
		all = append(all, r.Host)
	}
	return all
}

func TestReadOfSeveralUsers(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, ".history.0.jsonl", record(t, "c", 3*time.Minute), record(t, "a", time.Minute))
	write(t, dir, ".history.1000.1.jsonl", record(t, "b", 2*time.Minute))
	write(t, dir, ".history.1000.jsonl", record(t, "d", 4*time.Minute))
	for _, name := range []string{".history.jsonl", ".history.x.jsonl", ".history.0.2.jsonl", "history.0.jsonl", ".history.0.jsonl.tmp", ".history.12345678901.jsonl"} {
		write(t, dir, name, record(t, "not ours", 0))
	}
	now := noon.Add(time.Hour)
	records, skipped, err := read(dir, time.Time{}, now)
	require.NoError(t, err)
	assert.Zero(t, skipped)
	assert.Equal(t, []string{"a", "b", "c", "d"}, hosts(records))
	records, _, err = read(dir, noon.Add(2*time.Minute), now)
	require.NoError(t, err)
	assert.Equal(t, []string{"b", "c", "d"}, hosts(records))
	records, _, err = Read(t.TempDir(), time.Time{})
	require.NoError(t, err)
	assert.Empty(t, records)
	_, _, err = Read(filepath.Join(dir, "gone"), time.Time{})
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// A broken or hostile log costs its lines, nothing else.
func TestReadSkips(t *testing.T) {
	dir := t.TempDir()
	good := record(t, "good", 0)
	write(t, dir, ".history.0.jsonl",
		good,
		good[:100]+"\n", // torn
		"\n", "  \r\n",  // no lines
		"\x00\x00\x00\n", "[]\n", "null\n", "{}\n", `{"v":1}`+"\n",
		with(t, "kind", "steal")+"\n", with(t, "seconds", -1)+"\n",
		with(t, "v", 7)+"\n",
		with(t, "time", noon.Add(9999*time.Hour))+"\n",
		with(t, "error", strings.Repeat("x", maxLine))+"\n",
		with(t, "host", "\u001b[31m<script>")+"\n",
		strings.Repeat("x", 5*maxLine)+"\n",
		good,
		good[:len(good)-10], // being written
	)
	records, skipped, err := read(dir, time.Time{}, noon)
	require.NoError(t, err)
	assert.Equal(t, []string{"good", "\x1b[31m<script>", "good"}, hosts(records))
	assert.Equal(t, Skipped{Invalid: 9, OtherVersion: 1, Future: 1, TooLong: 2}, skipped)
	assert.Equal(t, 13, skipped.Lines())
}

// What is read is bounded, and it is the newest.
func TestReadIsBounded(t *testing.T) {
	dir := t.TempDir()
	var b bytes.Buffer
	line := strings.TrimSpace(record(t, "old", 0)) + strings.Repeat(" ", 15000) + "\n" // few are quick to read
	for b.Len() < maxFileBytes {
		b.WriteString(line)
	}
	write(t, dir, ".history.0.jsonl", b.String(), record(t, "new", time.Minute))
	records, skipped, err := read(dir, time.Time{}, noon)
	require.NoError(t, err)
	assert.Zero(t, skipped, "a line of which the beginning is not read")
	assert.LessOrEqual(t, len(records), maxFileBytes/len(line)+1)
	assert.Equal(t, "new", records[len(records)-1].Host)

	many := t.TempDir()
	for i := range maxFiles + 10 {
		name := fmt.Sprintf(".history.%d.jsonl", i)
		write(t, many, name, record(t, "host", 0))
		at := noon.Add(time.Duration(i) * time.Second)
		require.NoError(t, os.Chtimes(filepath.Join(many, name), at, at))
	}
	records, skipped, err = read(many, time.Time{}, noon)
	require.NoError(t, err)
	assert.Len(t, records, maxFiles)
	assert.Equal(t, Skipped{Files: 10}, skipped)
}

// A file that got the name of the one before while it was read is read once, as is one with two
// names.
func TestReadOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, ".history.0.jsonl", record(t, "host", 0))
	require.NoError(t, os.Link(filepath.Join(dir, ".history.0.jsonl"), filepath.Join(dir, ".history.0.1.jsonl")))
	records, _, err := read(dir, time.Time{}, noon)
	require.NoError(t, err)
	assert.Len(t, records, 1)
}

// Whatever is in a file, reading ends without an error, and each line counts once.
func FuzzRead(f *testing.F) {
	good := record(f, "host", 0)
	for _, text := range []string{"", good, good + good[:50], good + "{\n" + good, `{"v":2}` + "\n", `{"v":1e999}`, strings.Repeat("[", 1000), strings.Repeat(" ", maxLine*2) + "\n" + good, good[:len(good)-2] + `,"phases":{"fetch":1e308}}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var skipped Skipped
		var records []Record
		require.NoError(t, parseAll(bytes.NewReader(text), false, noon, &skipped, func(r Record) { records = append(records, r) }))
		lines := bytes.Count(text, []byte("\n")) + 1
		assert.LessOrEqual(t, len(records)+skipped.Lines(), lines)
		for _, r := range records {
			require.NoError(t, r.check(noon))
			line, err := r.line(noon)
			require.NoError(t, err)
			_, err = parse(line, noon)
			require.NoError(t, err, "what was read can be written")
		}
		report := Summarize(records, nil)
		assert.Equal(t, len(records), report.All.Records)
		assert.GreaterOrEqual(t, report.All.BytesFetched, int64(0))
	})
}
