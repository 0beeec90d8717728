//go:build unix

package history

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/internal/testtool"
)

// Environment of the child that TestMain turns this test binary into: a writer.
const writerVar = "DOCKERCACHE_TEST_HISTORY_WRITER" // what it is called, its user, how many records, the limit, the directory

func TestMain(m *testing.M) {
	if text := os.Getenv(writerVar); text != "" {
		if err := writer(text); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func writer(text string) error {
	parts := strings.SplitN(text, " ", 5)
	uid, _ := strconv.Atoi(parts[1])
	n, _ := strconv.Atoi(parts[2])
	limit, _ := strconv.ParseInt(parts[3], 10, 64)
	if uid != os.Geteuid() {
		if err := syscall.Setuid(uid); err != nil {
			return err
		}
	}
	l := Open(parts[4], &Options{MaxBytes: limit})
	for i := range n {
		r := stock()
		r.Host, r.Image = parts[0], strconv.Itoa(i)
		if err := l.Append(context.Background(), r); err != nil {
			return err
		}
	}
	return nil
}

// startWriter starts a process that writes records.
func startWriter(t *testing.T, name string, uid, records int, limit int64, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d %d %s", writerVar, name, uid, records, limit, dir))
	cmd.Stdout, cmd.Stderr = &bytes.Buffer{}, os.Stderr
	require.NoError(t, cmd.Start())
	return cmd
}

func finish(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	assert.NoError(t, cmd.Wait(), "%s", cmd.Stdout)
}

// Each user has a file of its own, in a directory in which they may not write to each other's.
func TestTwoUsers(t *testing.T) {
	testtool.NeedRoot(t)
	base := t.TempDir()
	dir := filepath.Join(base, "shared")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Chmod(dir, 0o777|os.ModeSticky))
	for d := base; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		require.NoError(t, os.Chmod(d, 0o755))
	}
	const one, two, each = 64322, 64323, 50
	for _, cmd := range []*exec.Cmd{startWriter(t, "one", one, each, maxLine, dir), startWriter(t, "two", two, each, maxLine, dir), startWriter(t, "root", 0, each, maxLine, dir)} {
		finish(t, cmd)
	}
	records, skipped, err := read(dir, time.Time{}, noon)
	require.NoError(t, err)
	assert.Zero(t, skipped)
	count := map[string]int{}
	for _, r := range records {
		count[r.Host]++
	}
	for _, name := range []string{"one", "two", "root"} {
		assert.Greater(t, count[name], 20, name)
	}
	// What another user has put in the place of the log is not replaced, and is no danger.
	theirs := filepath.Join(dir, fmt.Sprintf(".history.%d.jsonl", two))
	require.NoError(t, os.Remove(theirs))
	require.NoError(t, os.WriteFile(theirs, nil, 0o644))
	require.NoError(t, os.Chown(theirs, one, one))
	cmd := startWriter(t, "two", two, 1, 0, dir)
	assert.Error(t, cmd.Wait())
	assert.Contains(t, fmt.Sprint(cmd.Stdout), "permission denied")
}

func ownFile(dir string) string { return Open(dir, nil).path("") }

// Many processes write to one file; none of their lines is torn or lost.
func TestManyWriters(t *testing.T) {
	dir := t.TempDir()
	const writers, each = 12, 200
	var all []*exec.Cmd
	for i := range writers {
		all = append(all, startWriter(t, fmt.Sprint("writer-", i), os.Geteuid(), each, 0, dir))
	}
	for _, cmd := range all {
		finish(t, cmd)
	}
	records, skipped, err := read(dir, time.Time{}, noon)
	require.NoError(t, err)
	assert.Zero(t, skipped)
	seen := map[string]bool{}
	for _, r := range records {
		seen[r.Host+" "+r.Image] = true
	}
	assert.Len(t, records, writers*each)
	assert.Len(t, seen, writers*each)
}

// The same with a file that is full again and again: what is lost is what the file before the one
// before had, and nothing that was written last.
func TestManyWritersRotate(t *testing.T) {
	dir := t.TempDir()
	const writers, each, limit = 12, 300, 64 << 10
	var all []*exec.Cmd
	for i := range writers {
		all = append(all, startWriter(t, fmt.Sprint("writer-", i), os.Geteuid(), each, limit, dir))
	}
	for _, cmd := range all {
		finish(t, cmd)
	}
	records, skipped, err := read(dir, time.Time{}, noon)
	require.NoError(t, err)
	assert.Zero(t, skipped, "no line is torn")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	before, err := os.Stat(Open(dir, nil).path(".1"))
	require.NoError(t, err)
	line, err := stock().line(noon)
	require.NoError(t, err)
	assert.Greater(t, before.Size(), int64(limit-2*len(line)), "no file becomes the one before until it is full")
	assert.LessOrEqual(t, before.Size(), int64(limit+2*len(line)))
	// Of each writer the last ones are there, without a gap.
	by := map[string][]string{}
	for _, r := range records {
		by[r.Host] = append(by[r.Host], r.Image)
	}
	for host, images := range by {
		have := map[string]bool{}
		for _, image := range images {
			have[image] = true
		}
		for i := each - len(have); i < each; i++ {
			assert.True(t, have[strconv.Itoa(i)], "%s has %d records, and not %d", host, len(have), i)
		}
	}
}

func TestAppendReadable(t *testing.T) {
	dir := t.TempDir()
	for _, mode := range []os.FileMode{0o755, 0o700, 0o750, 0o777 | os.ModeSticky} {
		require.NoError(t, os.Chmod(dir, mode))
		require.NoError(t, Open(dir, nil).Append(t.Context(), stock()))
		info, err := os.Stat(ownFile(dir))
		require.NoError(t, err)
		assert.Equal(t, 0o600|mode&0o044, info.Mode(), "as the directory, %o, whatever the umask is", mode)
		require.NoError(t, os.Remove(ownFile(dir)))
	}
}

// After a line that is torn the next one is a record all the same.
func TestAppendAfterATornLine(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(ownFile(dir), []byte(`{"v":1,"time":"2026-`), 0o600))
	require.NoError(t, Open(dir, nil).Append(t.Context(), stock()))
	require.NoError(t, Open(dir, nil).Append(t.Context(), stock()))
	records, skipped, err := read(dir, time.Time{}, noon)
	require.NoError(t, err)
	assert.Len(t, records, 2)
	assert.Equal(t, Skipped{Invalid: 1}, skipped)
	raw, err := os.ReadFile(ownFile(dir))
	require.NoError(t, err)
	assert.Equal(t, 3, bytes.Count(raw, []byte("\n")))
}

// What is in the place of the log is not written to, and is not waited for.
func TestAppendToSomethingElse(t *testing.T) {
	for what, put := range map[string]func(path, other string) error{
		"a link": func(path, other string) error { return os.Symlink(other, path) },
		"a link to nothing": func(path, other string) error {
			return os.Symlink(other+".new", path)
		},
		"another name of a file": func(path, other string) error { return os.Link(other, path) },
		"a named pipe":           func(path, _ string) error { return syscall.Mkfifo(path, 0o666) },
		"a directory":            func(path, _ string) error { return os.Mkdir(path, 0o777) },
	} {
		t.Run(what, func(t *testing.T) {
			dir, elsewhere := t.TempDir(), t.TempDir()
			other := filepath.Join(elsewhere, "file")
			require.NoError(t, os.WriteFile(other, []byte("content\n"), 0o600))
			require.NoError(t, put(ownFile(dir), other))
			assert.Error(t, Open(dir, nil).Append(t.Context(), stock()))
			raw, err := os.ReadFile(other)
			require.NoError(t, err)
			assert.Equal(t, "content\n", string(raw))
			assert.NoFileExists(t, other+".new")
			records, skipped, err := read(dir, time.Time{}, noon)
			require.NoError(t, err)
			assert.Empty(t, records)
			if what == "another name of a file" {
				assert.Equal(t, Skipped{Invalid: 1}, skipped)
			} else {
				assert.Equal(t, Skipped{Files: 1}, skipped)
			}
		})
	}
}

func TestAppendWithoutTheDirectory(t *testing.T) {
	assert.ErrorIs(t, Open(filepath.Join(t.TempDir(), "gone"), nil).Append(t.Context(), stock()), os.ErrNotExist)
}

// locked locks this user's file as another process does.
func locked(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(ownFile(dir))
	require.NoError(t, err)
	held, err := sys.TryLock(f)
	require.NoError(t, err)
	require.False(t, held)
	t.Cleanup(func() { _ = f.Close() })
}

// A lock that is never released costs no record, and no rotation takes place without it.
func TestAppendWhileLocked(t *testing.T) {
	dir := t.TempDir()
	looks := 0
	l := Open(dir, &Options{MaxBytes: maxLine, sleep: func(context.Context, time.Duration) { looks++ }})
	require.NoError(t, l.Append(t.Context(), stock()))
	assert.Zero(t, looks)
	locked(t, dir)
	require.NoError(t, l.Append(t.Context(), stock()))
	assert.Equal(t, lockLooks, looks)

	ended, end := context.WithCancel(t.Context())
	end()
	require.NoError(t, l.Append(ended, stock()), "what was interrupted is recorded too")
	assert.Equal(t, lockLooks, looks, "and waits for nobody")

	var err error
	for n := 0; err == nil && n < 1000; n++ {
		err = l.Append(ended, stock())
	}
	assert.ErrorContains(t, err, "locked", "the file does not grow for ever")
	info, statErr := os.Stat(ownFile(dir))
	require.NoError(t, statErr)
	assert.LessOrEqual(t, info.Size(), int64(2*maxLine))
	assert.NoFileExists(t, l.path(".1"))
}

// A lock that is released in time is had, of the file that then has the name.
func TestAppendWaitsForRotation(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Open(dir, nil).Append(t.Context(), stock()))
	f, err := os.Open(ownFile(dir))
	require.NoError(t, err)
	_, err = sys.TryLock(f)
	require.NoError(t, err)
	l := Open(dir, nil)
	l.options.sleep = func(context.Context, time.Duration) {
		require.NoError(t, os.Rename(l.path(""), l.path(".1")))
		require.NoError(t, f.Close())
	}
	r := stock()
	r.Host = "after"
	require.NoError(t, l.Append(t.Context(), r))
	raw, err := os.ReadFile(l.path(""))
	require.NoError(t, err)
	assert.Contains(t, string(raw), "after")
	raw, err = os.ReadFile(l.path(".1"))
	require.NoError(t, err)
	assert.NotContains(t, string(raw), "after")
}

// Where the file before cannot be replaced there is one file, of twice the limit.
func TestAppendWithoutRotation(t *testing.T) {
	dir := t.TempDir()
	l := Open(dir, &Options{MaxBytes: maxLine})
	require.NoError(t, os.MkdirAll(filepath.Join(l.path(".1"), "below"), 0o777))
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = l.Append(t.Context(), stock())
	}
	assert.Error(t, err)
	info, statErr := os.Stat(l.path(""))
	require.NoError(t, statErr)
	assert.LessOrEqual(t, info.Size(), int64(2*maxLine))
	assert.Greater(t, info.Size(), int64(maxLine))
}

func BenchmarkAppend(b *testing.B) {
	l := Open(b.TempDir(), nil)
	for b.Loop() {
		if err := l.Append(context.Background(), stock()); err != nil {
			b.Fatal(err)
		}
	}
}
