package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/marks"
	"github.com/dockercache/dockercache/cache/internal/sys"
)

const (
	sweepDigest = ".0123456789ab"
	sweepUnique = ".0123456789abcdef"
)

// aged creates a file that was last written so long ago.
func aged(t testing.TB, dir *Dir, name string, age time.Duration, content string) string {
	t.Helper()
	path := filepath.Join(dir.Path(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o666))
	at := dir.now().Add(-age)
	require.NoError(t, os.Chtimes(path, at, at))
	return path
}

func retiredName(tarball string, at time.Time) string {
	return fmt.Sprintf(".%s.%d%s.retired", tarball, at.Unix(), sweepUnique)
}

func ownedBy(t testing.TB, host string) string {
	t.Helper()
	raw, err := json.Marshal(owner{ID: "1", Host: host, PID: 1})
	require.NoError(t, err)
	return string(raw)
}

func sweptNames(gone []Leftover) (names []string) {
	for _, l := range gone {
		names = append(names, l.Name)
	}
	return names
}

func TestSweep(t *testing.T) {
	dir, _, _, path := stocked(t)
	now := time.Unix(1_800_000_000, 0)
	dir.now = func() time.Time { return now }
	const day = 24 * time.Hour
	host, _ := os.Hostname()

	old := []string{ // in the order of their names
		".gone_main.tar" + sweepDigest + sweepUnique + ".partial",
		".gone_main.tar" + sweepDigest + sweepUnique + ".partial.journal",
		retiredName("gone_main.tar", now.Add(-DefaultGrace)),
		".gone_main.tar.lock.wanted", // goes with its lock, before it
		".gone_main.tar.lock",
		".gone_main.tar.mark",
		".new\nline_main.tar.mark",
		".orphan_main.tar" + sweepDigest + sweepUnique + ".partial.journal",
		".orphan_main.tar.lock.wanted",
		".other.json" + sweepUnique + ".tmp",
	}
	for _, name := range old {
		aged(t, dir, name, day, ownedBy(t, "another"))
	}
	kept := []string{
		".young_main.tar" + sweepDigest + sweepUnique + ".partial",
		".young_main.tar" + sweepDigest + sweepUnique + ".partial.journal",
		".young_main.tar.lock", ".young_main.tar.lock.wanted", ".young_main.tar.mark",
		".youngorphan_main.tar" + sweepDigest + sweepUnique + ".partial.journal",
		".youngorphan_main.tar.lock.wanted",
		".young.json" + sweepUnique + ".tmp",
	}
	for _, name := range kept {
		aged(t, dir, name, day-time.Second, ownedBy(t, host))
	}
	keep := func(name string, age time.Duration, content string) string {
		kept = append(kept, name)
		return aged(t, dir, name, age, content)
	}
	keep(retiredName("young_main.tar", now.Add(-DefaultGrace+time.Second)), 100*day, "")
	keep(retiredName("future_main.tar", now.Add(100*day)), 100*day, "")
	for _, name := range []string{".future_main.tar" + sweepDigest + sweepUnique + ".partial", ".future_main.tar.mark", ".future_main.tar.lock", ".future.json" + sweepUnique + ".tmp"} {
		keep(name, -100*day, ownedBy(t, "another"))
	}
	keep(".name_main.tar.mark", 100*day, "") // its tarball is there
	keep("notes.txt", 100*day, "")
	keep(".notes.lock", 100*day, "")
	keep("old_main.tar", 100*day, "no tarball, but called one")
	for _, name := range []string{".alive_main.tar" + sweepDigest + sweepUnique + ".partial", ".alive_main.tar.lock", ".alive.json" + sweepUnique + ".tmp"} {
		f, err := os.OpenFile(keep(name, 100*day, ownedBy(t, host)), os.O_RDWR, 0)
		require.NoError(t, err)
		defer f.Close()
		require.NoError(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	}
	keep(".alive_main.tar"+sweepDigest+sweepUnique+".partial.journal", 100*day, "")
	keep(".alive_main.tar.lock.wanted", 100*day, "")

	all := names(t, dir.Path())
	gone, err := dir.Sweep(t.Context(), &SweepOptions{DryRun: true})
	require.NoError(t, err)
	assert.ElementsMatch(t, old, sweptNames(gone))
	assert.Equal(t, all, names(t, dir.Path()), "a dry run")

	again, err := dir.Sweep(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, gone, again, "a dry run reports what would happen")
	assert.ElementsMatch(t, append(kept, filepath.Base(path)), names(t, dir.Path()))
	for _, l := range again {
		assert.Positive(t, l.Bytes, l.Name)
		if l.Kind == PreviousLeftover {
			assert.Equal(t, DefaultGrace, l.Age)
		} else {
			assert.Equal(t, day, l.Age, l.Name)
		}
	}

	// Whatever is asked for, the locks of the living count.
	_, err = dir.Sweep(t.Context(), &SweepOptions{Age: 1})
	require.NoError(t, err)
	have := names(t, dir.Path())
	for _, name := range kept {
		if filepath.Base(name)[:6] == ".alive" {
			assert.Contains(t, have, name)
		}
	}
	assert.NotContains(t, have, ".young_main.tar.lock")
}

// The owner of a lock on another host shows that it is alive by writing.
func TestSweepOfLocksOfOtherHosts(t *testing.T) {
	dir, _, _, _ := stocked(t)
	now := time.Unix(1_800_000_000, 0)
	dir.now = func() time.Time { return now }
	alive := aged(t, dir, ".a_main.tar.lock", deadAfter-time.Second, ownedBy(t, "another"))
	dead := aged(t, dir, ".b_main.tar.lock", deadAfter, ownedBy(t, "another"))
	_, err := dir.Sweep(t.Context(), &SweepOptions{Age: time.Second})
	require.NoError(t, err)
	assert.FileExists(t, alive)
	assert.NoFileExists(t, dead)
}

// The grace is the directory's, and none at all if it says so.
func TestSweepGrace(t *testing.T) {
	for grace, age := range map[time.Duration]time.Duration{time.Minute: time.Minute, -1: 0} {
		dir, err := Open(t.TempDir(), &Options{Grace: grace})
		require.NoError(t, err)
		now := time.Unix(1_800_000_000, 0)
		dir.now = func() time.Time { return now }
		path := aged(t, dir, retiredName("x_main.tar", now.Add(-age)), 0, "")
		young := aged(t, dir, retiredName("y_main.tar", now.Add(-age+time.Second)), 0, "")
		_, err = dir.Sweep(t.Context(), nil)
		require.NoError(t, err)
		assert.NoFileExists(t, path)
		if grace > 0 {
			assert.FileExists(t, young)
		}
	}
}

// Whatever stands under the names that the package makes, what it leads to and
// what is in it stays.
func TestSweepHostile(t *testing.T) {
	dir, _, _, _ := stocked(t)
	future := time.Now().Add(1000 * time.Hour)
	dir.now = func() time.Time { return future }
	outside := t.TempDir()
	target := filepath.Join(outside, "target")
	require.NoError(t, os.WriteFile(target, []byte("x"), 0o644))
	forms := []string{
		sweepDigest + sweepUnique + ".partial", sweepDigest + sweepUnique + ".partial.journal",
		".1700000000" + sweepUnique + ".retired", ".mark", ".lock", ".lock.wanted", sweepUnique + ".tmp",
	}
	for _, form := range forms {
		at := func(name string) string { return filepath.Join(dir.Path(), name+form) }
		require.NoError(t, os.Symlink(target, at(".link_main.tar")))
		require.NoError(t, os.Symlink(outside, at(".dirlink_main.tar")))
		require.NoError(t, os.Symlink("nowhere", at(".broken_main.tar")))
		require.NoError(t, os.Mkdir(at(".dir_main.tar"), 0o755))
		require.NoError(t, unix.Mkfifo(at(".pipe_main.tar"), 0o644))
	}
	before := names(t, dir.Path())
	gone, err := dir.Sweep(t.Context(), nil)
	require.NoError(t, err)
	assert.Empty(t, gone)
	assert.Equal(t, before, names(t, dir.Path()))
	assert.Equal(t, []string{"target"}, names(t, outside))

	// An old partial file beside which another user put a link for its journal.
	partial := aged(t, dir, ".x_main.tar"+sweepDigest+sweepUnique+".partial", 100*time.Hour, "")
	require.NoError(t, os.Symlink(target, partial+journalKind))
	gone, err = dir.Sweep(t.Context(), nil)
	require.NoError(t, err)
	assert.Equal(t, []string{filepath.Base(partial)}, sweptNames(gone))
	assert.Equal(t, []string{"target"}, names(t, outside))
}

func TestSweepEnds(t *testing.T) {
	dir, _, _, _ := stocked(t)
	stays := aged(t, dir, ".x.tar.mark", 100*time.Hour, "")
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	_, err := dir.Sweep(ctx, nil)
	require.ErrorIs(t, err, reason)
	assert.FileExists(t, stays)
	require.NoError(t, os.RemoveAll(dir.Path()))
	_, err = dir.Sweep(t.Context(), nil)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestLeftoverOf(t *testing.T) {
	const digest, unique = ".0123456789ab", ".0123456789abcdef"
	for name, want := range map[string]LeftoverKind{
		".x.tar" + digest + unique + ".partial":         PartialLeftover,
		".x.tar" + digest + unique + ".partial.journal": JournalLeftover,
		".x.tar.1700000000" + unique + ".retired":       PreviousLeftover,
		".x.tar.mark":                                MarkLeftover,
		".x.tar.lock":                                LockLeftover,
		".x.tar.lock.wanted":                         WantedLeftover,
		".x.tar.lock.next":                           LockLeftover,
		".x.tar.lock.next.wanted":                    WantedLeftover,
		".manifest.json" + unique + ".tmp":           TemporaryLeftover,
		".new\nline.tar.mark":                        MarkLeftover,
		"." + strings.Repeat("n", 196) + ".tar.mark": MarkLeftover,
		"." + strings.Repeat("n", 197) + ".tar.mark": "",
		"x.tar":                                "",
		".x.tar":                               "",
		"x.tar.lock":                           "",
		"x.tar" + digest + unique + ".partial": "",
		".x" + digest + unique + ".partial":    "",
		".x.tar" + unique + ".partial":         "",
		".x.tar" + digest + ".0123456789abcdeg.partial":       "",
		".x.tar" + digest + ".0123456789ABCDEF.partial":       "",
		".x.tar" + digest + unique + ".partial.tar":           "",
		".x.tar.soon" + unique + ".retired":                   "",
		".x.tar.-5" + unique + ".retired":                     "",
		".x.tar.9999999999999999999999" + unique + ".retired": "",
		".x.mark":                        "",
		"..tar.mark":                     "",
		"...tar.lock":                    "",
		".x.tar.wanted":                  "",
		".gitignore.lock":                "",
		unique + ".tmp":                  "",
		".x.tmp":                         "",
		".nfs000000000012345600000001":   "",
		".name_main.tar.1a2b.partial.md": "",
	} {
		kind, of := leftoverOf(name)
		assert.Equal(t, want, kind, name)
		if want != "" && want != TemporaryLeftover {
			assert.Regexp(t, `\.tar$`, of)
		}
	}
}

// What the package makes is what it finds.
func TestLeftoverFormsAreThoseOfWriters(t *testing.T) {
	name := strings.Repeat("n", maxName-4) + ".tar"
	for kind, made := range map[LeftoverKind]string{
		PartialLeftover:   sys.UniqueName(name+".0123456789ab", partialKind),
		JournalLeftover:   sys.UniqueName(name+".0123456789ab", partialKind) + journalKind,
		MarkLeftover:      "." + name + "." + marks.Kind,
		LockLeftover:      "." + name + "." + lockKind,
		WantedLeftover:    "." + name + "." + lockKind + askKind,
		TemporaryLeftover: sys.UniqueName("any", "tmp"),
	} {
		got, _ := leftoverOf(made)
		assert.Equal(t, kind, got)
	}
}

// Unlink never removes a directory, not even an empty one.
func TestUnlink(t *testing.T) {
	dir := t.TempDir()
	require.Error(t, sys.Unlink(dir))
	assert.DirExists(t, dir)
}
