package cache

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/dockercache/dockercache/cache/internal/sys"
)

// A lockState is what one look at a lock's file shows.
type lockState int

const (
	lockAbsent  lockState = iota
	lockFree              // it has no owner; the file is locked now
	lockForeign           // its owner is no writer: it is no file of this package, or only locked as readers do
	lockHeld              // by the kernel another process owns it
	lockUnclear           // it may have an owner, which the kernel does not show
)

// A sign is what shows that the owner of a lock lives: it changes.
type sign struct {
	owner owner
	inode uint64    // where the file cannot be read
	at    time.Time // likewise: when it was written
}

// A look is what was found at a lock's path.
type look struct {
	state lockState
	file  *os.File // if it could be opened
	sign  sign
	age   time.Duration // since it was written, by this clock
	far   bool          // its owner is, or was, on another host
}

// lookAt looks at a lock's file. It changes nothing. file must be closed.
func (d *Dir) lookAt(path string) look {
	f, err := sys.OpenToLock(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return look{state: lockAbsent}
	case errors.Is(err, fs.ErrPermission):
		// Of a version that followed the umask. Its heartbeats show in its time.
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return look{state: lockAbsent}
		case err != nil, sys.IsAlone(info) != nil:
			return look{state: lockForeign}
		}
		return look{state: lockUnclear, sign: sign{inode: sys.Inode(info), at: info.ModTime()}, age: sys.Age(info.ModTime(), d.now())}
	case err != nil: // a symbolic link, a socket
		return look{state: lockForeign}
	}
	info, err := f.Stat()
	if err != nil || sys.IsAlone(info) != nil {
		return look{state: lockForeign, file: f}
	}
	held, lockErr := sys.TryLock(f)
	onlyReaders := false
	if held {
		// Writers lock exclusively. Who may only read the file of an earlier version
		// can lock it all the same, for as long as they like.
		if writer, err := sys.TryLockShared(f); !writer && err == nil {
			held, lockErr = sys.TryLock(f) // a writer may have given it up just now
			onlyReaders = held
		}
	}
	if !sys.IsAt(f, path) { // its owner has removed it
		return look{state: lockAbsent, file: f}
	}
	l := look{file: f, sign: sign{owner: readOwner(f)}, age: sys.Age(info.ModTime(), d.now())}
	host, _ := os.Hostname()
	l.far = l.sign.owner.ID != "" && l.sign.owner.Host != host
	switch {
	case onlyReaders:
		l.state = lockForeign
	case held:
		l.state = lockHeld
	case !d.network, !l.far && l.sign.owner.ID != "" && lockErr == nil:
		l.state = lockFree
	default:
		l.state = lockUnclear
	}
	return l
}

// A vigil is what a waiting writer has seen of a lock's owner, by its own clock.
type vigil struct {
	sign     sign
	since    time.Time // when it was first seen
	progress time.Time // when the owner's progress was first seen to be what it is
}

func (v *vigil) see(s sign, now time.Time) {
	if !v.since.IsZero() && s == v.sign {
		return
	}
	if was, is := v.sign.owner, s.owner; v.since.IsZero() || is.ID != was.ID || is.Progress != was.Progress {
		v.progress = now
	}
	v.sign, v.since = s, now
}

// hasStopped reports whether an owner lives, as far as is known, and its work does not go on.
func (d *Dir) hasStopped(v *vigil) bool {
	limit := silentAfter
	if d.network {
		limit = deadAfter
	}
	return v.sign.owner.Progress > 0 && d.now().Sub(v.progress) >= limit
}

// isSilent reports whether an owner that has shown nothing since then is not to be
// waited for. Where the file system is this machine's the file's own time counts too.
func (d *Dir) isSilent(l look, since time.Duration) bool {
	if d.network {
		return since >= deadAfter
	}
	return max(since, l.age) >= silentAfter
}

func (l look) close() {
	if l.file != nil {
		_ = l.file.Close()
	}
}

// isBeingWritten reports whether [Dir.tryLock] would not get the lock, and creates
// nothing.
func (d *Dir) isBeingWritten(name string) bool {
	path := d.lockPath(name)
	return d.isOwned(path) || d.isOwned(path+nextKind)
}

// isOwned reports whether the lock at path seems to have an owner.
func (d *Dir) isOwned(path string) bool {
	l := d.lookAt(path)
	l.close()
	return l.state == lockHeld || l.state == lockFree && l.far || l.state == lockUnclear && !d.isOver(l)
}

// isOver reports whether a lock that is unclear has no owner, as far as one look shows.
func (d *Dir) isOver(l look) bool {
	if l.state != lockUnclear || d.isSilent(l, 0) {
		return l.state == lockUnclear
	}
	if l.file != nil {
		return l.sign.owner.ID == ""
	}
	return l.age >= deadAfter
}

// lockDeadLock opens and locks a writer's lock whose owner is dead, and reports whether
// it is. Where the kernel's lock does not reach the owner, or does not
// work, its heartbeats show: it writes them into the file every [heartbeatEvery].
func (d *Dir) lockDeadLock(path string, age time.Duration) (f *os.File, dead bool) {
	l := d.lookAt(path)
	if host, _ := os.Hostname(); l.state != lockFree || d.network || l.sign.owner.Host != host {
		age = max(age, deadAfter)
	}
	if l.state != lockFree && l.state != lockUnclear || l.age < age {
		l.close()
		return nil, false
	}
	return l.file, true
}
