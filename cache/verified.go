package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// A verification is the content of a small file beside a tarball,
// .<tarball>.<user number>.verified: when the tarball's bytes were hashed, and which file
// that was, in which state. While the file is in that state its layers are cloned or copied
// without being read back.
//
// It is about a file and not about a name: renaming it, or copying the directory, makes it
// neither wrong nor right of anything else. What is not exactly so does not count, and
// then the layers are hashed. So nothing is lost with the record, and it is not flushed.
type verification struct {
	Digest v1.Hash `json:"digest"` // the manifest's
	fileState
	// At is when the first of the bytes was hashed: a layer that was not read back brings the
	// time of where it came from. Otherwise no limit on age would hold for tarballs of which
	// each is made of the one before.
	At time.Time `json:"verified"`
}

// A fileState says which file it is, and changes when a byte of it does: the kernel, or the file
// server, sets the time of change, and nobody else can.
type fileState struct {
	Inode   uint64 `json:"inode"`
	Size    int64  `json:"size"`
	Changed int64  `json:"changed"` // st_ctime, ns since 1970
}

const (
	verifiedKind = "verified"
	// defaultTrust is the default of [Options.TrustFor]: a refresh a day hashes all of an
	// image once a week.
	defaultTrust = 7 * 24 * time.Hour
	// A time of change that is kept in no smaller units is the same after two changes in
	// a row: 2 s of FAT, 1 s of ext4 with small inodes and of old file servers.
	coarsest = time.Millisecond
	// Times of change advance with a tick of the kernel's clock, which is 10 ms at most, and
	// from Linux 6.13 on with each change that follows a look.
	tickStep, tickSteps = 2 * time.Millisecond, 20
)

// verifiedForm is the form of the name of a verification, of which the first group is the
// tarball's.
var verifiedForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?s)^\.([^.].*\.tar)\.[0-9]{1,10}\.` + verifiedKind + `$`)
})

func verifiedPath(dir, name string, user int) string {
	return filepath.Join(dir, fmt.Sprintf(".%s.%d.%s", name, user, verifiedKind))
}

// stateOf returns the state of an open file, if that shows every change of it that another
// user could make, or that is made by mistake:
//
//   - The file system sets the time of change with every change, in small units, also when
//     the file is mapped, see [sys.ShowsChanges].
//   - The file belongs to this user or root, and no others may write to it. They could have it
//     mapped already, and a page of it changed since the last flush: further changes of that page
//     show only after the next.
func stateOf(f *os.File) (fileState, bool) {
	info, err := f.Stat()
	if err != nil || !sys.ShowsChanges(f) || !info.Mode().IsRegular() || !sys.OnlyTrustedWrite(info) {
		return fileState{}, false
	}
	s := fileState{sys.Inode(info), info.Size(), sys.Changed(info)}
	return s, s.Inode != 0 && s.Changed%int64(coarsest) != 0
}

// stateAt returns the state of the file at path. It opens the file: for one that is open
// already, NFS may state what it was up to a minute ago.
func stateAt(path string) (fileState, bool) {
	f, err := sys.OpenToRead(path, sys.NoFollow)
	if err != nil {
		return fileState{}, false
	}
	defer f.Close()
	return stateOf(f)
}

// verifiedAt returns when the bytes of a tarball, open as f, were hashed, by the records of
// this user and of root; false if there is none that counts.
func (d *Dir) verifiedAt(name string, f *os.File, digest v1.Hash) (state fileState, at time.Time, ok bool) {
	if d.trustFor <= 0 {
		return fileState{}, time.Time{}, false
	}
	state, known := stateOf(f)
	if !known {
		return fileState{}, time.Time{}, false
	}
	for _, user := range []int{os.Geteuid(), 0} {
		v, err := readVerification(verifiedPath(d.path, name, user))
		if err != nil || v.fileState != state || v.Digest != digest {
			continue
		}
		// One from the future says that a clock has jumped, and not how old it is.
		if age := d.now().Sub(v.At); age >= 0 && age < d.trustFor && v.At.After(at) {
			at, ok = v.At, true
		}
	}
	return state, at, ok
}

// readVerification reads what this user or root has recorded. Nobody else is believed: what
// is recorded decides what is published under this user's name.
func readVerification(path string) (v verification, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|sys.NoFollow|sys.NonBlock, 0)
	if err != nil {
		return v, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return v, err
	}
	if err := sys.IsAlone(info); err != nil {
		return v, err
	}
	if !sys.OnlyTrustedWrite(info) {
		return v, fmt.Errorf("%s: %w", path, sys.ErrNotOwn)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal(raw, &v)
}

// recordVerified records that all bytes of the tarball called name were hashed, the first of
// them at a time, and that its file was in a state then. A failure is none of the tarball:
// without the record it is hashed when a layer is taken from it.
func (d *Dir) recordVerified(ctx context.Context, name string, v verification) {
	if d.trustFor <= 0 {
		return
	}
	if err := d.writeVerification(ctx, name, v); err != nil {
		d.log.DebugContext(ctx, "the verification of a tarball cannot be recorded: what is taken from it will be hashed", "tarball", name, "error", err)
	}
}

func (d *Dir) writeVerification(ctx context.Context, name string, v verification) (err error) {
	content, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := sys.CreateTemp(d.path, name, "tmp", 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = sys.Unlink(f.Name())
		}
		_ = f.Close()
	}()
	_ = sys.ShareWithReaders(f, d.path)
	// A change in the same tick of the clock as the last one would leave the state as it
	// is. So the clock must have advanced: what changes from now on, as this file does, gets
	// another time. It is the file system's clock, which may be a server's.
	for range tickSteps {
		if _, err := f.WriteAt(content, 0); err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if sys.Changed(info) > v.Changed {
			if now, ok := stateAt(filepath.Join(d.path, name)); !ok || now != v.fileState {
				return fmt.Errorf("%s has changed meanwhile", name)
			}
			return os.Rename(f.Name(), verifiedPath(d.path, name, os.Geteuid()))
		}
		if err := d.sleep(ctx, tickStep); err != nil {
			return err
		}
	}
	return errors.New("the file system's clock does not advance")
}

// verifyAll verifies every byte of the tarball called name, open as t, and records the
// outcome.
func (d *Dir) verifyAll(ctx context.Context, name string, t *tarball.Tarball, progress func(n int64)) error {
	at := d.now()
	state, known := d.settledState(filepath.Join(d.path, name))
	err := t.Verify(ctx, progress)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		forgetVerified(d.path, name)
	case known:
		d.recordVerified(ctx, name, verification{t.Image.Digest(), state, at})
	}
	return err
}

// settledState returns the state of the file at path when all changes so far show in it: a
// mapped page shows those after the first only when it was flushed in between.
func (d *Dir) settledState(path string) (state fileState, ok bool) {
	if d.trustFor <= 0 {
		return fileState{}, false
	}
	f, err := sys.OpenToRead(path, sys.NoFollow)
	if err != nil {
		return fileState{}, false
	}
	defer f.Close()
	if _, ok := stateOf(f); !ok || sys.Flush(f) != nil {
		return fileState{}, false
	}
	return stateOf(f)
}

// forgetVerified removes what is recorded, by any user, of the verification of the tarball
// called name, as far as that is allowed.
func forgetVerified(dir, name string) {
	entries, _ := os.ReadDir(dir) // what cannot be read cannot be removed
	for _, e := range entries {
		if verifiedOf(e.Name()) == name {
			_ = sys.Unlink(filepath.Join(dir, e.Name()))
		}
	}
}

// verifiedOf returns the name of the tarball of which a file records the verification, by
// its name; "" if it is none.
func verifiedOf(file string) string {
	if !strings.HasSuffix(file, "."+verifiedKind) {
		return ""
	}
	if m := verifiedForm().FindStringSubmatch(file); m != nil {
		return m[1]
	}
	return ""
}
