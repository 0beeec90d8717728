package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

const (
	lockKind = "lock"
	// heartbeatEvery is how often the owner of a lock shows that it is alive.
	heartbeatEvery = 5 * time.Second
	// deadAfter is how long an owner on another host may show nothing before it
	// is dead. NFS clients may see a file's content up to 60 s late
	// (acregmax, nfs(5)).
	deadAfter = 90 * time.Second
	// silentAfter is the same on a local file system for an owner of which the kernel
	// says that it lives, or cannot be asked: it is suspended, or no writer.
	silentAfter = 30 * time.Second
	// lookEvery is how often a waiting writer looks.
	lookEvery = time.Second
	// lockSize is the size of the file: always the same, so that it is written
	// over in one call and never seen half.
	lockSize = 1 << 10
)

// An owner is what the file .<tarball>.lock says: who writes that tarball.
type owner struct {
	ID   string `json:"id"` // of this lock, random
	Host string `json:"host"`
	PID  int    `json:"pid"`
	tarball.Run
	Beat int64 `json:"beat"` // counts the heartbeats
}

func (o owner) String() string { return fmt.Sprintf("process %d on %s", o.PID, o.Host) }

// newOwner returns what this process is called in a lock.
func newOwner(run tarball.Run) owner {
	host, _ := os.Hostname() // "" is a host like any other
	return owner{ID: fmt.Sprintf("%016x", rand.Uint64()), Host: host, PID: os.Getpid(), Run: run}
}

// A writerLock keeps the writers of one tarball apart, so that they do not all
// do the same work. It is no more than that: each writes a file of its own and
// publishes it whole, so nothing is lost where the lock fails. So no writer waits for
// ever: where the lock cannot be used, or its owner shows nothing for too long, the work
// is done without it.
//
// The owner is who has created the file and locked it: a file that is there is removed by
// the next owner and never written to, for it may be anything. Only where it cannot be
// removed, as another user's in a directory with the sticky bit, it is locked where it is.
//
// On a local file system the kernel's lock on the file decides; it ends with the
// process, so a dead owner is never waited for. On a network file system that
// lock may not reach other hosts: there an owner on another one counts as alive
// while it goes on writing its heartbeats, which are compared with each other
// and never with a clock.
type writerLock struct {
	file  *os.File // locked; nil: this is work without the lock
	out   *os.File // the same file, to write to; nil where it must not be written
	path  string
	me    owner
	stop  context.CancelFunc
	ended chan struct{}
}

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
	if !sys.IsAt(f, path) { // its owner has removed it
		return look{state: lockAbsent, file: f}
	}
	l := look{file: f, sign: sign{owner: readOwner(f)}, age: sys.Age(info.ModTime(), d.now())}
	host, _ := os.Hostname()
	l.far = l.sign.owner.ID != "" && l.sign.owner.Host != host
	switch {
	case held:
		// Writers lock exclusively. Who may only read the file of an earlier version
		// can lock it all the same, for as long as they like.
		if writer, err := sys.TryLockShared(f); !writer && err == nil {
			l.state = lockForeign
		} else {
			l.state = lockHeld
		}
	case !d.network, !l.far && l.sign.owner.ID != "" && lockErr == nil:
		l.state = lockFree
	default:
		l.state = lockUnclear
	}
	return l
}

// isSilent reports whether an owner that has shown nothing since then is not to be
// waited for. Where the file system is this machine's the file's own time counts too.
func (d *Dir) isSilent(l look, since time.Duration) bool {
	if d.network {
		return since >= deadAfter
	}
	return max(since, l.age) >= silentAfter
}

// claim tries to get the lock at path. The lock is nil if another process owns it, whose
// file it then looked at. It is taken from an owner on another host too if by the kernel it is
// free, with far; and from one that shows the sign dead. Where the lock is of no use it is
// one without a file. The error is that of creating the file.
func (d *Dir) claim(ctx context.Context, path string, me owner, far bool, dead *sign) (*writerLock, look, error) {
	for range 100 {
		f, err := sys.CreateOwn(path)
		if err == nil {
			if held, _ := sys.TryLock(f); held || !sys.IsAt(f, path) {
				_ = f.Close() // another was quicker
				continue
			}
			return &writerLock{file: f, out: f, path: path, me: me}, look{}, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, look{}, err
		}
		l := d.lookAt(path)
		isDead := dead != nil && l.sign == *dead
		if l.state == lockHeld || l.state == lockUnclear && !isDead || l.state == lockFree && l.far && !far {
			l.close()
			return nil, l, nil
		}
		if l.state != lockAbsent {
			// While it is locked, where it can be: the next owner's file is not removed.
			if err := sys.Unlink(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				if l.file != nil && l.state != lockForeign {
					return &writerLock{file: l.file, out: openOldLock(path, l.file), path: path, me: me}, l, nil
				}
				l.close()
				d.log.WarnContext(ctx, "what is in the place of a lock cannot be removed: the work is done without it", "lock", path, "error", err)
				return &writerLock{path: path, me: me}, l, nil
			}
		}
		l.close()
	}
	return &writerLock{path: path, me: me}, look{}, nil // others create and remove it all the time
}

func (l look) close() {
	if l.file != nil {
		_ = l.file.Close()
	}
}

// openOldLock opens a lock's file, which f is and another user made, for writing; nil if
// that is not allowed, or if it is anything but a lock's file.
func openOldLock(path string, f *os.File) *os.File {
	w, err := os.OpenFile(path, os.O_RDWR|sys.NoFollow|sys.NonBlock, 0)
	if err != nil {
		return nil
	}
	info, err := w.Stat()
	if err == nil && sys.IsAlone(info) == nil && sys.IsAt(f, path) && (info.Size() == 0 || info.Size() <= 2*lockSize && readOwner(w).ID != "") {
		if is, err := f.Stat(); err == nil && os.SameFile(is, info) {
			return w
		}
	}
	_ = w.Close()
	return nil
}

// lock waits for the lock of the tarball called name. The context that it returns
// ends with [ErrPreempted] when a newer run asks for the tarball. The error is
// that of ctx or of the file system; a directory that cannot be written to is
// one.
func (d *Dir) lock(ctx context.Context, name string, run tarball.Run, preempt bool) (*writerLock, context.Context, error) {
	me := newOwner(run)
	path := filepath.Join(d.path, "."+name+"."+lockKind)
	var seen sign
	var since time.Time
	var dead *sign
	logged := false
	for {
		lock, l, err := d.claim(ctx, path, me, true, dead)
		if err != nil {
			return nil, nil, fmt.Errorf("lock %s: %w", name, err)
		}
		if lock != nil {
			sys.AtStep("lock")
			ctx := d.own(ctx, lock)
			sys.AtStep("own")
			return lock, ctx, nil
		}
		was := l.sign.owner
		if since.IsZero() || l.sign != seen {
			seen, since = l.sign, d.now()
		}
		if d.isSilent(l, d.now().Sub(since)) {
			if l.state == lockHeld {
				d.log.WarnContext(ctx, "the owner of a lock shows no sign of life: the work is done without the lock", "tarball", name, "owner", was.String())
				lock := &writerLock{path: path, me: me}
				return lock, d.own(ctx, lock), nil
			}
			if dead == nil || *dead != l.sign {
				d.log.WarnContext(ctx, "the owner of a lock is dead", "tarball", name, "owner", was.String())
				dead = &l.sign
				continue
			}
		}
		if !logged {
			d.log.InfoContext(ctx, "another writer has the tarball", "tarball", name, "owner", was.String())
			logged = true
		}
		if preempt && run.NewerThan(was.Run) {
			askFor(path, me)
		}
		if err := d.sleep(ctx, lookEvery); err != nil {
			return nil, nil, err
		}
	}
}

// own begins the heartbeats of a lock that this process has now.
func (d *Dir) own(ctx context.Context, l *writerLock) context.Context {
	l.ended = make(chan struct{})
	if l.file == nil {
		l.stop = func() {}
		close(l.ended)
		return ctx
	}
	// A run that still wants it asks again; the one that did may be dead.
	_ = sys.Unlink(l.path + askKind)
	stale := readAsker(l.path).ID // what cannot be removed was not meant for this owner
	if err := l.write(); err != nil {
		// The kernel's lock holds all the same. On a full disk it is the room for
		// the tarball that is missing, and what says so comes next.
		d.log.WarnContext(ctx, "the owner of a lock cannot be written into it", "lock", l.path, "error", err)
	}
	ctx, end := context.WithCancelCause(ctx)
	heartbeats, stop := context.WithCancel(ctx)
	l.stop = stop
	go func() {
		defer close(l.ended)
		for d.sleep(heartbeats, d.heartbeat) == nil {
			l.me.Beat++
			_ = l.write() // a heartbeat less; the next one may work
			if asked := readAsker(l.path); asked.ID != stale && asked.NewerThan(l.me.Run) {
				d.log.WarnContext(ctx, "a newer run takes the tarball over", "lock", l.path, "run", asked.Run.ID)
				end(ErrPreempted)
			}
		}
	}()
	return ctx
}

func (l *writerLock) write() error {
	if l.out == nil {
		return fmt.Errorf("it is another user's file")
	}
	_, err := l.out.WriteAt(l.me.record(), 0)
	return err
}

// record is what a lock's file holds: JSON, and spaces up to its size.
func (o owner) record() []byte {
	raw, _ := json.Marshal(o) // strings and numbers: cannot fail
	return append(raw, bytes.Repeat([]byte(" "), max(lockSize-len(raw), 0))...)
}

// unlock gives the lock up. The file is removed while it is still locked, so
// that a waiting writer finds either none or one that is not it.
func (l *writerLock) unlock() {
	l.stop()
	<-l.ended
	if l.file == nil {
		return
	}
	sys.AtStep("unlock")
	if sys.IsAt(l.file, l.path) {
		_ = sys.Unlink(l.path + askKind)
		_ = sys.Unlink(l.path)
	}
	_ = l.file.Close()
	if l.out != nil {
		_ = l.out.Close()
	}
}

func readOwner(f io.ReaderAt) (o owner) {
	raw, err := io.ReadAll(io.NewSectionReader(f, 0, 2*lockSize))
	if err != nil || json.Unmarshal(raw, &o) != nil {
		return owner{}
	}
	return o
}

// askKind follows the name of a lock: the file says which newer run wants it.
const askKind = ".wanted"

// askFor asks the owner of a lock to give it up.
func askFor(lock string, me owner) {
	if readAsker(lock).Run == me.Run {
		return
	}
	_ = sys.Unlink(lock + askKind) // it may be anything: it is not written to
	f, err := sys.CreateOwn(lock + askKind)
	if err != nil {
		return // then the owner ends its work first
	}
	_, _ = f.Write(me.record())
	_ = f.Close()
}

func readAsker(lock string) owner {
	f, err := os.OpenFile(lock+askKind, os.O_RDONLY|sys.NoFollow|sys.NonBlock, 0)
	if err != nil {
		return owner{}
	}
	defer f.Close()
	return readOwner(f)
}

// tryLock is [Dir.lock] without waiting, for work of an instant: nil if another
// has the tarball. An owner on another host counts as alive, for this one may be its file
// server, where no lock of its clients shows; a dead one's lock is swept in time.
func (d *Dir) tryLock(ctx context.Context, name string) (*writerLock, error) {
	path := filepath.Join(d.path, "."+name+"."+lockKind)
	me := newOwner(tarball.Run{})
	lock, l, err := d.claim(ctx, path, me, false, nil)
	if lock == nil && err == nil && d.isOver(l) {
		lock, _, err = d.claim(ctx, path, me, false, &l.sign)
	}
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		lock = &writerLock{path: path} // a full disk must not keep prune from making room
	case err != nil:
		return nil, fmt.Errorf("lock: %w", err)
	case lock == nil:
		return nil, nil
	}
	lock.stop, lock.ended = func() {}, make(chan struct{})
	close(lock.ended) // there are no heartbeats to wait for
	if lock.file != nil {
		_ = lock.write() // likewise
	}
	return lock, nil
}

// isBeingWritten reports whether [Dir.tryLock] would not get the lock, and creates
// nothing.
func (d *Dir) isBeingWritten(name string) bool {
	l := d.lookAt(filepath.Join(d.path, "."+name+"."+lockKind))
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

// pruneLock is what the lock of all prunes of a directory is called, .prune.lock;
// no tarball can be called so. With two at work each would find in use what the
// other is about to remove, and remove another in its place.
const pruneLock = "prune"

// lockAll waits for others that hold a lock of the whole directory.
func (d *Dir) lockAll(ctx context.Context, name string) (unlock func(), err error) {
	lock, _, err := d.lock(ctx, name, tarball.Run{}, false)
	switch {
	case err == nil:
		return lock.unlock, nil
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return func() {}, nil // then above all prune must work
	}
	return nil, err
}
