package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// The files of testdata/a0fccee were written by this package as it was at that commit.
// Machines with different versions share a directory, so what is in them is fixed:
//
//   - name_main.tar, of run 5, with a .mark of run 7, and the version before it;
//   - begun_main.tar, of which the first layer is complete in a partial file, with the
//     lock of a dead process of another host, and run 6 waiting for that.
func oldDir(t *testing.T) (*Dir, cachetest.Blobs) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "old")
	require.NoError(t, os.CopyFS(path, os.DirFS("testdata/a0fccee")))
	dir, err := Open(path, nil)
	require.NoError(t, err)
	return dir, cachetest.Blobs{}
}

// oldImages returns the images of that directory, the one that is there and the one
// that was begun.
func oldImages(t *testing.T, src cachetest.Blobs) (named, begun *tarball.Image) {
	t.Helper()
	return testImage(t, src.Add(cachetest.Noise(12, 300)), src.Add(cachetest.Noise(13, 200))),
		testImage(t, src.Add(cachetest.Noise(14, 400)), src.Add(cachetest.Noise(15, 500)))
}

// sameAge makes all files of a directory that old.
func sameAge(t *testing.T, dir *Dir, age time.Duration) {
	t.Helper()
	at := dir.now().Add(-age)
	for _, name := range names(t, dir.Path()) {
		require.NoError(t, os.Chtimes(filepath.Join(dir.Path(), name), at, at))
	}
}

func TestOldTarball(t *testing.T) {
	dir, src := oldDir(t)
	img, _ := oldImages(t, src)
	provenance := tarball.Provenance{Source: "mirror/x:t", Branch: "main", Run: tarball.Run{ID: 5, Attempt: 1}}

	opened := get(t, dir, "name_main.tar")
	assert.Equal(t, img, opened.Image)
	assert.Equal(t, provenance, opened.Provenance)
	require.NoError(t, opened.Verify(t.Context(), nil))
	entries, err := dir.List(t.Context())
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.NoError(t, entries[0].Err)
	assert.Equal(t, tarball.Run{ID: 7, Attempt: 2}, entries[0].Run, "the .mark's")
	assert.Equal(t, "name", entries[0].Group)
	results, err := dir.Verify(t.Context(), nil, nil)
	require.NoError(t, err)
	require.Len(t, results, 1)
	require.NoError(t, results[0].Err)

	// The same image is there, and the same bytes would be written.
	r := remoteOf(img, none)
	result, err := dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, nil)
	require.NoError(t, err)
	assert.Equal(t, Unchanged, result.Outcome)
	r.requireNotAsked(t)
	written := filepath.Join(t.TempDir(), "file")
	require.NoError(t, WriteTarball(t.Context(), written, img, src, &WriteOptions{Provenance: provenance}))
	assert.True(t, content(t, opened.Name()) == content(t, written), "the same bytes")
}

func TestOldRecord(t *testing.T) {
	dir, src := oldDir(t)
	other := testImage(t, src.Add(cachetest.Noise(1, 100)))
	put := func(run int64) Outcome {
		result, err := dir.Put(t.Context(), "name_main.tar", other, src, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: run, Attempt: 1}}})
		require.NoError(t, err)
		return result.Outcome
	}
	assert.Equal(t, Superseded, put(6), "newer than the tarball, but not than its .mark")
	assert.Equal(t, Superseded, put(7), "an earlier attempt of that run")
	assert.Equal(t, Stocked, put(8))
	assert.Equal(t, tarball.Run{ID: 8, Attempt: 1}, requireStocked(t, dir, "name_main.tar").Provenance.Run)
}

// What the version before reads of a record, and how much of one.
type oldRecord struct {
	Digest  v1.Hash `json:"digest"`
	ID      int64   `json:"run,omitempty"`
	Attempt int64   `json:"attempt,omitempty"`
}

const maxOldRecord = 1 << 10

func TestRecordIsReadByTheOldVersion(t *testing.T) {
	dir, img, _, _ := stocked(t)
	_, err := dir.Put(t.Context(), "name_main.tar", img, none, &PutOptions{Group: strings.Repeat("g", maxName), Provenance: tarball.Provenance{Run: tarball.Run{ID: 7, Attempt: 2}}})
	require.NoError(t, err)
	raw := content(t, markPath(dir.Path(), "name_main.tar"))
	require.Less(t, len(raw), maxOldRecord)
	var old oldRecord
	require.NoError(t, json.Unmarshal([]byte(raw), &old))
	assert.Equal(t, oldRecord{img.Digest(), 7, 2}, old)
}

// The lock of a process that has died on another host is waited for as long as it may
// be alive, and the file that it began is adopted.
func TestOldPartial(t *testing.T) {
	dir, src := oldDir(t)
	_, img := oldImages(t, src)
	dir.network = true // on a local file system the kernel knows
	sameAge(t, dir, time.Hour)
	counted := &counting{Blobs: src}
	run := tarball.Run{ID: 4, Attempt: 1}
	var waited time.Duration
	start := time.Now()
	dir.now = func() time.Time { return start.Add(waited) }
	dir.sleep = func(ctx context.Context, d time.Duration) error {
		if d != lookEvery {
			return wait.Sleep(ctx, d)
		}
		waited += d
		return nil
	}
	result, err := dir.Put(t.Context(), "begun_main.tar", img, counted, &PutOptions{Provenance: tarball.Provenance{Source: "mirror/x:t", Run: run}})
	require.NoError(t, err)
	assert.InDelta(t, deadAfter, waited, float64(lookEvery))
	assert.Equal(t, Stocked, result.Outcome)
	assert.EqualValues(t, 500, result.Downloaded, "the layer that was missing")
	assert.Zero(t, counted.asked[img.Layers()[0].Digest])
	assert.Equal(t, run, requireStocked(t, dir, "begun_main.tar").Provenance.Run)
	for _, name := range names(t, dir.Path()) {
		assert.False(t, strings.HasPrefix(name, ".begun"), name)
	}
}

func TestOldLockOnALocalFileSystem(t *testing.T) {
	dir, src := oldDir(t)
	_, img := oldImages(t, src)
	if sys.IsNetworkAt(dir.Path()) {
		t.Skip("the temporary directory is on a network file system")
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		lock, ctx, err := dir.lock(t.Context(), "begun_main.tar", tarball.Run{ID: 4}, false)
		require.NoError(t, err)
		assert.Zero(t, time.Since(start))
		time.Sleep(time.Minute)
		require.NoError(t, ctx.Err(), "run 6 asked another owner")
		lock.unlock()
	})
	result, err := dir.Put(t.Context(), "begun_main.tar", img, src, &PutOptions{Provenance: tarball.Provenance{Source: "mirror/x:t", Run: tarball.Run{ID: 3, Attempt: 1}}})
	require.NoError(t, err)
	assert.EqualValues(t, 500, result.Downloaded)
}

func TestOldLeftovers(t *testing.T) {
	dir, _ := oldDir(t)
	now := time.Unix(1_700_000_000, 0).Add(48 * time.Hour)
	dir.now = func() time.Time { return now }
	sameAge(t, dir, 25*time.Hour)
	gone, err := dir.Sweep(t.Context(), nil)
	require.NoError(t, err)
	kinds := map[LeftoverKind]int{}
	for _, l := range gone {
		kinds[l.Kind]++
	}
	assert.Equal(t, map[LeftoverKind]int{PartialLeftover: 1, JournalLeftover: 1, LockLeftover: 1, WantedLeftover: 1, PreviousLeftover: 1}, kinds)
	assert.Equal(t, []string{".name_main.tar.mark", "name_main.tar"}, names(t, dir.Path()))

	require.NoError(t, dir.Remove(t.Context(), "name_main.tar"))
	assert.Empty(t, names(t, dir.Path()))
}

// The forms of the names that the version before sweeps, and of the records that it reads.
var oldForms = []string{
	`(?s)^\.([^.].*\.tar)\.[0-9a-f]{12}\.[0-9a-f]{16}\.partial(\.journal)?$`, `(?s)^\.([^.].*\.tar)\.[0-9]{1,18}\.[0-9a-f]{16}\.retired$`,
	`(?s)^\.([^.].*\.tar)(?:\.[0-9]{1,10})?\.mark$`, `(?s)^\.([^.].*\.tar)\.lock(\.wanted)?$`, `(?s)^\.(.+)\.[0-9a-f]{16}\.tmp$`,
}

// What records a verification is nothing that the version before knows: it stays, also when
// that removes or replaces the tarball, and then it does not count.
func TestVerificationIsNothingToTheOldVersion(t *testing.T) {
	b := newBelieved(t)
	record := b.recordPath("a_main.tar")
	for _, form := range oldForms {
		assert.NotRegexp(t, form, filepath.Base(record))
	}
	assert.True(t, strings.HasPrefix(filepath.Base(record), "."), "no tarball")

	require.NoError(t, os.WriteFile(b.path+".new", []byte(content(t, b.path)), 0o644))
	require.NoError(t, os.Rename(b.path+".new", b.path)) // as it publishes
	assert.FileExists(t, record)
	assert.Equal(t, []string{b.path}, b.requireHashed(t, nil).Damaged)

	require.NoError(t, os.WriteFile(record, nil, 0o600)) // the one of the damaged tarball was removed
	require.NoError(t, os.Remove(b.path))
	b.now = time.Now().Add(25 * time.Hour)
	_, err := b.dir.Sweep(t.Context(), nil)
	require.NoError(t, err)
	assert.NoFileExists(t, record)
}

// A tarball of a version that recorded nothing is hashed, until Verify has.
func TestOldTarballIsHashed(t *testing.T) {
	dir, src := oldDir(t)
	needRecords(t, dir)
	path := filepath.Join(dir.Path(), "name_main.tar")
	info := infoOf(t, path)
	_, err := dir.Verify(t.Context(), nil, nil)
	require.NoError(t, err)
	v, err := readVerification(verifiedPath(dir.Path(), "name_main.tar", os.Geteuid()))
	require.NoError(t, err)
	assert.Equal(t, info.Image.Digest(), v.Digest)
	require.NoError(t, os.Remove(verifiedPath(dir.Path(), "name_main.tar", os.Geteuid())))

	named, _ := oldImages(t, src)
	damage(t, path, 0)
	result, err := dir.Put(t.Context(), "other_main.tar", named, src, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{path}, result.Damaged)
	requireStocked(t, dir, "other_main.tar")
}

// What the version before reads of a lock, and how much of one: what changes in it shows
// that its owner lives.
func TestLockIsReadByTheOldVersion(t *testing.T) {
	type oldOwner struct {
		ID   string `json:"id"`
		Host string `json:"host"`
		PID  int    `json:"pid"`
		tarball.Run
		Beat int64 `json:"beat"`
	}
	most := owner{
		ID: strings.Repeat("f", 16), Host: strings.Repeat("h", 64), PID: 1 << 31, Beat: 1 << 62, Progress: 1 << 62,
		Run: tarball.Run{ID: 1 << 62, Attempt: 1 << 62},
	}
	raw := most.record()
	require.Len(t, raw, lockSize)
	var old oldOwner
	require.NoError(t, json.Unmarshal(raw, &old))
	assert.Equal(t, oldOwner{most.ID, most.Host, most.PID, most.Run, most.Beat}, old)
	before, err := json.Marshal(old)
	require.NoError(t, err)
	assert.Equal(t, owner{ID: most.ID, Host: most.Host, PID: most.PID, Run: most.Run, Beat: most.Beat}, readOwner(bytes.NewReader(before)))
}
