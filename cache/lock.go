package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

const (
	lockKind = "lock"
	// nextKind follows the name of a lock: it keeps those apart who do the work although the
	// lock has an owner.
	nextKind = ".next"
	// heartbeatEvery is how often the owner of a lock shows that it is alive.
	heartbeatEvery = 5 * time.Second
	// deadAfter is how long an owner on another host may show nothing before it
	// is dead. NFS clients may see a file's content up to 60 s late
	// (acregmax, nfs(5)).
	deadAfter = 90 * time.Second
	// silentAfter is the same on a local file system for an owner that is alive by
	// the kernel, or of which the kernel knows nothing: it is suspended, or no writer.
	silentAfter = 30 * time.Second
	// lookEvery is how often a waiting writer looks.
	lookEvery = time.Second
)

// A writerLock keeps the writers of one tarball apart, so that they do not all
// do the same work. It is no more than that: each writes a file of its own and
// publishes it whole, so nothing is lost where the lock fails. So no writer waits for
// ever: where the lock cannot be used, or its owner shows nothing for too long, or no
// progress, the work is done without it. Of those who wait then one does it: they wait for
// each other at a second lock, in the same way.
//
// Who owns the lock although it is not waited for any more keeps it: it may go on, and
// publish.
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
	flow  *flow // of the work, whose progress is shown
	next  *writerLock
	stop  context.CancelFunc
	ended chan struct{}
}

func (d *Dir) lockPath(name string) string { return filepath.Join(d.path, "."+name+"."+lockKind) }

// claim tries to get the lock at path. The lock is nil if another process owns it, whose
// file it then looked at. It is taken from an owner on another host too if by the kernel it is
// free, with far; and from one that shows the sign dead. Where the lock is of no use it is
// one without a file. The error is that of creating the file.
func (d *Dir) claim(ctx context.Context, path string, me owner, far bool, dead *sign) (*writerLock, look, error) {
	for range 100 {
		f, err := sys.CreateOwn(path)
		if err == nil {
			if held, _ := sys.TryLock(f); held || !sys.IsAt(f, path) {
				// Another was quicker, or looks at it just now. On a network file system the
				// others would wait for the owner of an empty file.
				if d.network && sys.IsAt(f, path) {
					_ = sys.Unlink(path)
				}
				_ = f.Close()
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
			if l.file != nil && !sys.IsAt(l.file, path) {
				l.close() // another has removed it, and what is there may be its own
				continue
			}
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
// one. What is done under the lock must keep its flow up to date.
func (d *Dir) lock(ctx context.Context, name string, run tarball.Run, preempt bool) (*writerLock, context.Context, error) {
	path, f := d.lockPath(name), &flow{}
	l, ctx, err := d.lockAt(ctx, name, path, f, run, preempt)
	if err != nil {
		return nil, nil, fmt.Errorf("lock %s: %w", name, err)
	}
	next := d.lookAt(path + nextKind)
	next.close()
	if l.file == nil || next.state != lockAbsent {
		both := context.Context(nil)
		if l.next, both, err = d.lockAt(ctx, name, path+nextKind, f, run, preempt); err != nil {
			l.unlock()
			return nil, nil, fmt.Errorf("lock %s: %w", name, err)
		}
		ctx = both
	}
	return l, ctx, nil
}

// lockAt is [Dir.lock] for one file.
func (d *Dir) lockAt(ctx context.Context, name, path string, f *flow, run tarball.Run, preempt bool) (*writerLock, context.Context, error) {
	me := newOwner(run)
	me.Progress = 1
	var v vigil
	var dead *sign
	logged := false
	for {
		lock, l, err := d.claim(ctx, path, me, true, dead)
		if err != nil {
			return nil, nil, err
		}
		if lock != nil {
			sys.AtStep("lock")
			ctx := d.own(ctx, lock, f)
			sys.AtStep("own")
			return lock, ctx, nil
		}
		was := l.sign.owner
		v.see(l.sign, d.now())
		silent := d.isSilent(l, d.now().Sub(v.since))
		if silent && l.state != lockHeld && (dead == nil || *dead != l.sign) {
			d.log.WarnContext(ctx, "the owner of a lock is dead", "tarball", name, "owner", was.String())
			dead = &l.sign
			continue
		}
		if silent && l.state == lockHeld || !silent && d.hasStopped(&v) {
			why := "the owner of a lock makes no progress: the work is done without the lock"
			if silent {
				why = "the owner of a lock shows no sign of life: the work is done without the lock"
			}
			d.log.WarnContext(ctx, why, "tarball", name, "owner", was.String())
			lock := &writerLock{path: path, me: me}
			return lock, d.own(ctx, lock, f), nil
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
func (d *Dir) own(ctx context.Context, l *writerLock, f *flow) context.Context {
	l.flow, l.ended = f, make(chan struct{})
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
			if !f.slow.Load() {
				l.me.Progress++
			}
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

// unlock gives the lock up. The file is removed while it is still locked, so
// that a waiting writer finds either none or one that is not it.
func (l *writerLock) unlock() {
	if l.next != nil {
		l.next.unlock() // who owns the lock next finds none
	}
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

// tryLock is [Dir.lock] without waiting, for work of an instant: nil if another
// has the tarball. An owner on another host counts as alive, for this one may be its file
// server, where no lock of its clients shows; a dead one's lock is swept in time.
func (d *Dir) tryLock(ctx context.Context, name string) (*writerLock, error) {
	path := d.lockPath(name)
	if d.isOwned(path + nextKind) {
		return nil, nil
	}
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
