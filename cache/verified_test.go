package cache

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// needRecords skips a test where the file system shows too little for verifications to be
// recorded. That they are on ext4, XFS and btrfs is tested in internal/filesystems.
func needRecords(t testing.TB, dir *Dir) {
	t.Helper()
	f, err := os.Open(dir.Path())
	require.NoError(t, err)
	defer f.Close()
	if !sys.ShowsChanges(f) {
		t.Skip("the temporary directory is on a file system of which the times of change are not relied upon")
	}
}

// believed is a directory with a tarball whose first layer is damaged and which is recorded
// as verified: a layer that is taken from it without being hashed is wrong.
type believed struct {
	dir   *Dir
	src   cachetest.Blobs
	base  v1.Descriptor // the damaged layer
	info  *tarball.Info // of the tarball, a_main.tar
	path  string
	now   time.Time // of the directory
	state fileState
}

func newBelieved(t testing.TB) *believed {
	t.Helper()
	b := &believed{dir: openTestDir(t), src: cachetest.Blobs{}, now: time.Now()}
	needRecords(t, b.dir)
	b.dir.now = func() time.Time { return b.now }
	b.base = b.src.Add(cachetest.Noise(1, 300_000))
	b.path = putAs(t, b.dir, "a_main.tar", testImage(t, b.base, b.src.Add(cachetest.Noise(2, 100))), b.src, tarball.Provenance{})
	b.info = infoOf(t, b.path)
	damage(t, b.path, 0)
	b.record(t)
	return b
}

// record records that the file as it is was verified just now.
func (b *believed) record(t testing.TB) {
	t.Helper()
	state, ok := stateAt(b.path)
	require.True(t, ok)
	b.state = state
	require.NoError(t, b.dir.writeVerification(t.Context(), "a_main.tar", verification{b.info.Image.Digest(), state, b.now}))
}

// requireHashed stocks another image with the layer, and fails if it takes the damaged one.
func (b *believed) requireHashed(t testing.TB, o *PutOptions) *Result {
	t.Helper()
	result, err := b.dir.Put(t.Context(), "b_main.tar", testImage(t, b.base, b.src.Add(cachetest.Noise(3, 200))), b.src, o)
	require.NoError(t, err)
	requireStocked(t, b.dir, "b_main.tar")
	return result
}

// requireBelieved stocks another image, and fails if the damaged layer is hashed.
func (b *believed) requireBelieved(t testing.TB, name string) *Result {
	t.Helper()
	result, err := b.dir.Put(t.Context(), name, testImage(t, b.base, b.src.Add([]byte(name))), b.src, nil)
	require.NoError(t, err)
	assert.EqualValues(t, len(name), result.Downloaded)
	assert.Equal(t, b.base.Size, result.Reused)
	assert.Empty(t, result.Damaged)
	return result
}

func (b *believed) recordPath(name string) string {
	return verifiedPath(b.dir.Path(), name, os.Geteuid())
}

func (b *believed) recorded(t testing.TB, name string) verification {
	t.Helper()
	v, err := readVerification(b.recordPath(name))
	require.NoError(t, err)
	return v
}

// The promise's other side: damage in a source that is recorded as good is taken over. It is
// found when all of it is read, and can be repaired.
func TestVerifiedLayersAreNotHashed(t *testing.T) {
	b := newBelieved(t)
	b.requireBelieved(t, "b_main.tar")
	results, err := b.dir.Verify(t.Context(), nil, nil)
	require.NoError(t, err)
	for _, r := range results {
		assert.Equal(t, []v1.Hash{b.base.Digest}, r.Damaged, r.Name)
	}
	for _, name := range allNames(t, b.dir.Path()) {
		assert.Empty(t, verifiedOf(name), "what is damaged is no longer recorded as verified")
	}
	// Nothing that is repaired is taken on trust.
	b.record(t)
	result, err := b.dir.Repair(t.Context(), &results[1], b.src, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{b.path}, result.Damaged)
	assert.Equal(t, b.base.Size, result.Downloaded)
	requireStocked(t, b.dir, "b_main.tar")
	assert.NoFileExists(t, b.recordPath("a_main.tar"), "it was found to be damaged")
	assert.Equal(t, b.now.Unix(), b.recorded(t, "b_main.tar").At.Unix())
}

func TestWhatIsHashedAllTheSame(t *testing.T) {
	for name, o := range map[string]*PutOptions{"Verify": {Verify: true}, "Rewrite": {Rewrite: true}} {
		t.Run(name, func(t *testing.T) {
			b := newBelieved(t)
			assert.Equal(t, []string{b.path}, b.requireHashed(t, o).Damaged)
		})
	}
	t.Run("TrustFor", func(t *testing.T) {
		b := newBelieved(t)
		strict, err := Open(b.dir.Path(), &Options{TrustFor: -1})
		require.NoError(t, err)
		b.dir = strict
		assert.Equal(t, []string{b.path}, b.requireHashed(t, nil).Damaged)
		assert.NoFileExists(t, b.recordPath("b_main.tar"))
	})
}

// A recorded verification never outlives a changed file, and no other record counts.
func TestVerificationThatDoesNotCount(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, b *believed){
		"written in place, same size and time": func(t *testing.T, b *believed) {
			info, err := os.Stat(b.path)
			require.NoError(t, err)
			damage(t, b.path, 1)
			require.NoError(t, os.Chtimes(b.path, info.ModTime(), info.ModTime()))
		},
		"its mode changed, and back": func(t *testing.T, b *believed) {
			require.NoError(t, os.Chmod(b.path, 0o600))
			require.NoError(t, os.Chmod(b.path, 0o644))
		},
		"another file": func(t *testing.T, b *believed) {
			require.NoError(t, os.WriteFile(b.path+".new", []byte(content(t, b.path)), 0o644))
			require.NoError(t, os.Rename(b.path+".new", b.path))
		},
		"a copy of the directory": func(t *testing.T, b *believed) {
			path := filepath.Join(t.TempDir(), "copy")
			require.NoError(t, os.CopyFS(path, os.DirFS(b.dir.Path())))
			copied, err := Open(path, nil)
			require.NoError(t, err)
			b.dir, b.path = copied, filepath.Join(path, "a_main.tar")
		},
		"of another tarball": func(t *testing.T, b *believed) {
			putAs(t, b.dir, "c_main.tar", testImage(t, b.src.Add(cachetest.Noise(9, 10))), b.src, tarball.Provenance{})
			require.NoError(t, os.Rename(b.recordPath("c_main.tar"), b.recordPath("a_main.tar")))
		},
		"of another image": func(t *testing.T, b *believed) {
			require.NoError(t, b.dir.writeVerification(t.Context(), "a_main.tar", verification{b.base.Digest, b.state, b.now}))
		},
		"too old":                func(_ *testing.T, b *believed) { b.now = b.now.Add(defaultTrust) },
		"from the future":        func(_ *testing.T, b *believed) { b.now = b.now.Add(-time.Second) },
		"not JSON":               func(t *testing.T, b *believed) { b.replace(t, []byte("verified")) },
		"empty":                  func(t *testing.T, b *believed) { b.replace(t, nil) },
		"JSON of something else": func(t *testing.T, b *believed) { b.replace(t, []byte(`["verified"]`)) },
		"huge": func(t *testing.T, b *believed) {
			raw := content(t, b.recordPath("a_main.tar"))
			b.replace(t, []byte(strings.Repeat(" ", maxRecord)+raw))
		},
		"a link": func(t *testing.T, b *believed) {
			path := b.recordPath("a_main.tar")
			elsewhere := filepath.Join(t.TempDir(), "record")
			require.NoError(t, os.WriteFile(elsewhere, []byte(content(t, path)), 0o600))
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Symlink(elsewhere, path))
		},
		"a second name": func(t *testing.T, b *believed) {
			path := b.recordPath("a_main.tar")
			require.NoError(t, os.Link(path, path+".too"))
		},
		"a pipe": func(t *testing.T, b *believed) {
			require.NoError(t, os.Remove(b.recordPath("a_main.tar")))
			require.NoError(t, unix.Mkfifo(b.recordPath("a_main.tar"), 0o600))
		},
		"a directory": func(t *testing.T, b *believed) {
			require.NoError(t, os.Remove(b.recordPath("a_main.tar")))
			require.NoError(t, os.Mkdir(b.recordPath("a_main.tar"), 0o700))
		},
		"others may write it": func(t *testing.T, b *believed) {
			require.NoError(t, os.Chmod(b.recordPath("a_main.tar"), 0o620))
		},
		"of another user": func(t *testing.T, b *believed) {
			needRoot(t)
			require.NoError(t, os.Chown(b.recordPath("a_main.tar"), 1234, -1))
		},
		"others may write the tarball": func(t *testing.T, b *believed) {
			b.recordAs(t, func() error { return os.Chmod(b.path, 0o664) })
		},
		"the tarball is another user's": func(t *testing.T, b *believed) {
			needRoot(t)
			b.recordAs(t, func() error { return os.Chown(b.path, 1234, -1) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBelieved(t)
			change(t, b)
			assert.Equal(t, []string{b.path}, b.requireHashed(t, nil).Damaged)
		})
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this test needs root, to give files to another user")
	}
}

// replace writes other content into the record.
func (b *believed) replace(t testing.TB, content []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(b.recordPath("a_main.tar"), content, 0o600))
}

// recordAs changes the tarball, and makes the record one of what it is now.
func (b *believed) recordAs(t testing.TB, change func() error) {
	t.Helper()
	require.NoError(t, change())
	info, err := os.Stat(b.path)
	require.NoError(t, err)
	raw, err := json.Marshal(verification{b.info.Image.Digest(), fileState{sys.Inode(info), info.Size(), sys.Changed(info)}, b.now})
	require.NoError(t, err)
	b.replace(t, raw)
}

// Each of a chain of refreshes is as old as its oldest bytes: some day all is hashed.
func TestVerificationsOfRefreshesGrowOld(t *testing.T) {
	b := newBelieved(t)
	first := b.now
	b.now = first.Add(defaultTrust / 2)
	b.requireBelieved(t, "b_main.tar")
	assert.Equal(t, first.Unix(), b.recorded(t, "b_main.tar").At.Unix(), "not hashed since")
	require.NoError(t, b.dir.Remove(t.Context(), "a_main.tar"))
	assert.NoFileExists(t, b.recordPath("a_main.tar"))
	b.path = filepath.Join(b.dir.Path(), "b_main.tar")
	b.now = first.Add(defaultTrust - time.Second)
	b.requireBelieved(t, "c_main.tar")
	require.NoError(t, b.dir.Remove(t.Context(), "c_main.tar"))

	b.now = first.Add(defaultTrust)
	result, err := b.dir.Put(t.Context(), "d_main.tar", testImage(t, b.base), b.src, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{b.path}, result.Damaged)
	assert.Equal(t, b.now.Unix(), b.recorded(t, "d_main.tar").At.Unix(), "all is hashed")
}

// Verify hashes, and so what it finds is recorded.
func TestVerifyRenewsTheVerification(t *testing.T) {
	for name, verify := range map[string]func(dir *Dir, img *tarball.Image) error{
		"Verify": func(dir *Dir, _ *tarball.Image) error {
			_, err := dir.Verify(t.Context(), nil, nil)
			return err
		},
		"PutOptions.Verify": func(dir *Dir, img *tarball.Image) error {
			result, err := dir.Put(t.Context(), "a_main.tar", img, none, &PutOptions{Verify: true})
			return errors.Join(err, map[bool]error{false: errors.New("it was written")}[result.Outcome == Unchanged])
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBelieved(t)
			damage(t, b.path, 0) // which makes it right
			was := b.recorded(t, "a_main.tar")
			b.now = b.now.Add(time.Hour)
			require.NoError(t, verify(b.dir, b.info.Image))
			now := b.recorded(t, "a_main.tar")
			assert.Equal(t, b.now.Unix(), now.At.Unix())
			assert.NotEqual(t, was.Changed, now.Changed)
			state, ok := stateAt(b.path)
			require.True(t, ok)
			assert.Equal(t, state, now.fileState)
		})
	}
	t.Run("an image that is unchanged", func(t *testing.T) {
		b := newBelieved(t)
		before := b.recorded(t, "a_main.tar")
		b.now = b.now.Add(time.Hour)
		result, err := b.dir.Put(t.Context(), "a_main.tar", b.info.Image, none, nil)
		require.NoError(t, err)
		assert.Equal(t, Unchanged, result.Outcome)
		assert.Equal(t, before, b.recorded(t, "a_main.tar"), "nothing was hashed")
	})
	t.Run("a change while it is verified", func(t *testing.T) {
		b := newBelieved(t)
		damage(t, b.path, 0)
		require.NoError(t, os.Remove(b.recordPath("a_main.tar")))
		var once bool
		_, err := b.dir.Verify(t.Context(), nil, &VerifyOptions{Progress: func(p tarball.Progress) {
			if p.Done == p.Total && !once {
				once = true
				damage(t, b.path, 0)
			}
		}})
		require.NoError(t, err)
		assert.True(t, once)
		assert.NoFileExists(t, b.recordPath("a_main.tar"))
	})
}

// What changes while a layer is taken from it is hashed, also what was right before.
func TestVerifiedLayerThatChangesMeanwhile(t *testing.T) {
	b := newBelieved(t)
	var relied []time.Time
	found, end := b.dir.findVerified(b.info.Layout.Layers(), func(at time.Time) { relied = append(relied, at) })
	defer end()
	place := found[b.base.Digest]
	require.Len(t, place, 1)
	assert.Equal(t, b.path, place[0].Name)
	assert.True(t, place[0].Verified())
	require.Len(t, relied, 1)
	assert.Equal(t, b.now.Unix(), relied[0].Unix())
	damage(t, b.path, 1)
	assert.False(t, place[0].Verified())
	b.record(t)
	assert.False(t, place[0].Verified(), "it was looked at in another state")
	require.NoError(t, os.Remove(b.path))
	assert.False(t, place[0].Verified())
	assert.Len(t, relied, 1)
}

// A change in the same tick of the clock as the last one would not show.
func TestVerificationWaitsForTheClock(t *testing.T) {
	b := newBelieved(t)
	state := b.state
	state.Changed = time.Now().Add(time.Hour).UnixNano()
	waits := 0
	b.dir.sleep = func(_ context.Context, d time.Duration) error {
		waits++
		assert.Equal(t, tickStep, d)
		return nil
	}
	require.ErrorContains(t, b.dir.writeVerification(t.Context(), "a_main.tar", verification{b.info.Image.Digest(), state, b.now}), "clock does not advance")
	assert.Equal(t, tickSteps, waits)
	state.Changed = b.state.Changed - 1
	require.ErrorContains(t, b.dir.writeVerification(t.Context(), "a_main.tar", verification{b.info.Image.Digest(), state, b.now}), "has changed")
	assert.Equal(t, b.state, b.recorded(t, "a_main.tar").fileState, "the record before stays")
	assert.Equal(t, []string{"a_main.tar"}, names(t, b.dir.Path()), "no temporary files")
}

// A refresh that was killed begins with what it has of the layers that it took on trust. It is
// hashed where it cannot be cloned again.
func TestResumedRefreshIsHashed(t *testing.T) {
	b := newBelieved(t)
	img := testImage(t, b.base, b.src.Add(cachetest.Noise(5, 100_000)))
	layout := mustLayout(t, img)
	p, err := openPartial(b.dir.path, "b_main.tar", img.Digest(), layout)
	require.NoError(t, err)
	at, _ := layout.Layer(b.base.Digest)
	_, err = p.file.WriteAt(cachetest.Noise(6, int(b.base.Size)), at.Offset)
	require.NoError(t, err)
	p.journal.Add(b.base.Digest, 0, b.base.Size)
	p.close()
	require.NoError(t, os.Remove(b.recordPath("a_main.tar")))
	result, err := b.dir.Put(t.Context(), "b_main.tar", img, b.src, nil)
	require.NoError(t, err)
	assert.EqualValues(t, b.base.Size+100_000, result.Downloaded)
	requireStocked(t, b.dir, "b_main.tar")
}

// Two refreshes at once: neither waits for the other to bring what both have.
func TestVerifiedLayersAreNotWaitedFor(t *testing.T) {
	b := newBelieved(t)
	first, second := testImage(t, b.base, b.src.Add(cachetest.Noise(5, 100))), testImage(t, b.base, b.src.Add(cachetest.Noise(6, 100)))
	begun := false
	atStep(t, func(step string) { // before the first one copies anything
		if step != "write" || begun {
			return
		}
		begun = true
		if assert.NotContains(t, b.dir.inflight.layers, b.base.Digest) {
			_, err := b.dir.Put(t.Context(), "c_main.tar", second, b.src, nil)
			assert.NoError(t, err)
		}
	})
	result, err := b.dir.Put(t.Context(), "b_main.tar", first, b.src, nil)
	require.NoError(t, err)
	assert.True(t, begun)
	assert.EqualValues(t, 100, result.Downloaded)
	assert.Empty(t, b.dir.inflight.layers)
}

// The record goes with its tarball. One of a tarball that a version before has removed is
// swept.
func TestVerificationsOfTarballsThatAreGone(t *testing.T) {
	b := newBelieved(t)
	require.NoError(t, os.WriteFile(verifiedPath(b.dir.Path(), "a_main.tar", 4294967295), nil, 0o600))
	require.NoError(t, b.dir.Remove(t.Context(), "a_main.tar"))
	assert.Empty(t, allNames(t, b.dir.Path()))

	old := aged(t, b.dir, ".gone_main.tar.1000.verified", 25*time.Hour, "")
	aged(t, b.dir, ".young_main.tar.1000.verified", time.Hour, "")
	putAs(t, b.dir, "b_main.tar", b.info.Image, b.src, tarball.Provenance{})
	require.NoError(t, os.Chtimes(b.recordPath("b_main.tar"), time.Unix(1, 0), time.Unix(1, 0)))
	gone, err := b.dir.Sweep(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, gone, 1)
	assert.Equal(t, Leftover{Name: ".gone_main.tar.1000.verified", Kind: VerifiedLeftover, Age: gone[0].Age}, gone[0])
	assert.NoFileExists(t, old)
	assert.Equal(t, []string{".b_main.tar." + userNumber() + ".verified", ".young_main.tar.1000.verified", "b_main.tar"}, allNames(t, b.dir.Path()))
}

func userNumber() string { return strings.Split(verifiedPath("", "x", os.Geteuid()), ".")[2] }

// A record counts for its own user, and root's for all: another user must not decide what is
// published under a name that is not its own.
func TestWhoseVerificationsCount(t *testing.T) {
	needRoot(t)
	const user, other = 64001, 64002
	for name, c := range map[string]struct {
		tarball, record int // whose they are
		called          int // for whom the record is, by its name
		by              int // who stocks
		believed        bool
	}{
		"root's, for root":                      {0, 0, 0, 0, true},
		"root's, for a user":                    {0, 0, 0, user, true},
		"its own, of root's tarball":            {0, user, user, user, true},
		"its own":                               {user, user, user, user, true},
		"another's":                             {user, other, other, user, false},
		"another's, in the place of its own":    {user, other, user, user, false},
		"another's, in the place of root's":     {0, other, 0, user, false},
		"its own, of a tarball of another user": {other, user, user, user, false},
		"root's, of a tarball of another user":  {other, 0, 0, user, false},
		"a user's, for root":                    {user, user, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := openToAll(t)
			require.NoError(t, os.Chmod(path, 0o777))
			dir, err := Open(path, nil)
			require.NoError(t, err)
			needRecords(t, dir)
			src, images := killImages(t)
			b := &believed{dir: dir, src: src, now: time.Now()}
			b.path = putAs(t, dir, "a_main.tar", images[0], src, tarball.Provenance{})
			b.info = infoOf(t, b.path)
			damage(t, b.path, 0)
			b.recordAs(t, func() error { return os.Chown(b.path, c.tarball, -1) })
			record := verifiedPath(path, "a_main.tar", c.called)
			require.NoError(t, os.Chmod(b.recordPath("a_main.tar"), 0o644))
			require.NoError(t, os.Rename(b.recordPath("a_main.tar"), record))
			require.NoError(t, os.Chown(record, c.record, -1))

			stocks, said := startChild(t, asUser(c.by, 0o022), stockDirVar+"="+path)
			require.True(t, said.Scan())
			assert.Equal(t, "stocked", said.Text())
			require.NoError(t, stocks.Wait())
			stocked, err := tarball.Open(filepath.Join(path, "name_main.tar"))
			require.NoError(t, err)
			defer stocked.Close()
			assert.Equal(t, c.believed, stocked.Verify(t.Context(), nil) != nil)
			assert.FileExists(t, verifiedPath(path, "name_main.tar", c.by))
		})
	}
}

// Who may write to the file before it is published can change what was hashed.
func TestWhatOthersCouldWriteIsNotRecorded(t *testing.T) {
	for umask, recorded := range map[int]bool{0o022: true, 0o002: false, 0o020: false} {
		b := newBelieved(t)
		strict, err := Open(b.dir.Path(), &Options{Mode: 0o644})
		require.NoError(t, err)
		before := unix.Umask(umask)
		path := putAs(t, strict, "b_main.tar", testImage(t, b.src.Add(cachetest.Noise(5, 100))), b.src, tarball.Provenance{})
		unix.Umask(before)
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o644), info.Mode())
		_, err = os.Stat(b.recordPath("b_main.tar"))
		assert.Equal(t, recorded, err == nil, "%03o", umask)
	}
}
