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
// publishes it whole, so nothing is lost where the lock fails.
//
// On a local file system the kernel's lock on the file decides; it ends with the
// process, so a dead owner is never waited for. On a network file system that
// lock may not reach other hosts: there an owner on another one counts as alive
// while it goes on writing its heartbeats, which are compared with each other
// and never with a clock.
type writerLock struct {
	file  *os.File
	path  string
	me    owner
	stop  context.CancelFunc
	ended chan struct{}
}

// lock waits for the lock of the tarball called name. The context that it returns
// ends with [ErrPreempted] when a newer run asks for the tarball. The error is
// that of ctx or of the file system; a directory that cannot be written to is
// one.
func (d *Dir) lock(ctx context.Context, name string, run tarball.Run, preempt bool) (*writerLock, context.Context, error) {
	me := newOwner(run)
	host := me.Host
	path := filepath.Join(d.path, "."+name+"."+lockKind)
	var seen owner // on another host
	var since time.Time
	logged := false
	for {
		f, created, err := openLock(path)
		if err != nil {
			return nil, nil, fmt.Errorf("lock %s: %w", name, err)
		}
		held, err := sys.TryLock(f)
		if !held && !sys.IsAt(f, path) {
			_ = f.Close() // its owner has removed it
			continue
		}
		was := readOwner(f)
		if !held {
			free := created || !d.network || was.Host == host && err == nil
			switch {
			case free:
			case since.IsZero() || was != seen:
				seen, since = was, d.now()
			case d.now().Sub(since) >= deadAfter:
				d.log.WarnContext(ctx, "the owner of a lock is dead", "tarball", name, "owner", was.String())
				free = true
			}
			switch {
			case free && sys.IsReadOnly(f) && os.Remove(path) == nil: // one that can be written to takes its place
				_ = f.Close()
				continue
			case free:
				sys.AtStep("lock")
				l, ctx := d.own(ctx, f, path, me)
				sys.AtStep("own")
				return l, ctx, nil
			}
		}
		_ = f.Close()
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

const lockFlags = sys.NoFollow | sys.NonBlock

// openLock opens a lock's file and reports whether it was not there before.
func openLock(path string) (f *os.File, created bool, err error) {
	for range 100 {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|lockFlags, 0o666)
		if err == nil || !errors.Is(err, fs.ErrExist) {
			return f, true, err
		}
		f, err = openOldLock(path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, false, err
		}
	}
	return nil, false, err
}

// openOldLock opens a lock's file that is there. One of another user, whose umask
// lets nobody else write, can be locked and read.
func openOldLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|lockFlags, 0)
	if errors.Is(err, fs.ErrPermission) {
		return os.OpenFile(path, os.O_RDONLY|lockFlags, 0)
	}
	return f, err
}

// own makes me the owner.
func (d *Dir) own(ctx context.Context, f *os.File, path string, me owner) (*writerLock, context.Context) {
	// A run that still wants it asks again; the one that did may be dead.
	_ = os.Remove(path + askKind)
	l := &writerLock{file: f, path: path, me: me, ended: make(chan struct{})}
	if err := l.write(); err != nil {
		// The kernel's lock holds all the same. On a full disk it is the room for
		// the tarball that is missing, and what says so comes next.
		d.log.WarnContext(ctx, "the lock cannot say whose it is", "lock", path, "error", err)
	}
	ctx, end := context.WithCancelCause(ctx)
	heartbeats, stop := context.WithCancel(ctx)
	l.stop = stop
	go func() {
		defer close(l.ended)
		for d.sleep(heartbeats, d.heartbeat) == nil {
			l.me.Beat++
			_ = l.write() // a heartbeat less; the next one may work
			if asked := readAsker(path); asked.NewerThan(l.me.Run) {
				d.log.WarnContext(ctx, "a newer run takes the tarball over", "lock", path, "run", asked.ID)
				end(ErrPreempted)
			}
		}
	}()
	return l, ctx
}

func (l *writerLock) write() error {
	_, err := l.file.WriteAt(l.me.record(), 0)
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
	sys.AtStep("unlock")
	if sys.IsAt(l.file, l.path) {
		_ = os.Remove(l.path + askKind)
		_ = os.Remove(l.path)
	}
	_ = l.file.Close()
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
	if readAsker(lock) == me.Run {
		return
	}
	f, err := os.OpenFile(lock+askKind, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|sys.NoFollow|sys.NonBlock, 0o666)
	if err != nil {
		return // then the owner ends its work first
	}
	_, _ = f.Write(me.record())
	_ = f.Close()
}

func readAsker(lock string) tarball.Run {
	f, err := os.OpenFile(lock+askKind, os.O_RDONLY|sys.NoFollow|sys.NonBlock, 0)
	if err != nil {
		return tarball.Run{}
	}
	defer f.Close()
	return readOwner(f).Run
}

// tryLock is [Dir.lock] without waiting, for work of an instant: nil if another
// has the tarball. An owner on another host counts as alive; a dead one's lock is
// swept in time.
func (d *Dir) tryLock(name string) (*writerLock, error) {
	path := filepath.Join(d.path, "."+name+"."+lockKind)
	f, _, err := openLock(path)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	me := newOwner(tarball.Run{})
	if !mayOwn(f, path, me.Host) {
		_ = f.Close()
		return nil, nil
	}
	ended := make(chan struct{}) // there are no heartbeats to wait for
	close(ended)
	l := &writerLock{file: f, path: path, me: me, stop: func() {}, ended: ended}
	_ = l.write() // a full disk must not keep prune from making room
	return l, nil
}

// isBeingWritten reports whether [Dir.tryLock] would not get the lock, and creates
// nothing.
func (d *Dir) isBeingWritten(name string) bool {
	path := filepath.Join(d.path, "."+name+"."+lockKind)
	f, err := openOldLock(path)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	return !mayOwn(f, path, newOwner(tarball.Run{}).Host)
}

// mayOwn reports whether the lock at path, which f is, is free: f has the
// kernel's lock on it, and it names no owner, or one that has died on this host.
func mayOwn(f *os.File, path, host string) bool {
	held, err := sys.TryLock(f)
	if info, statErr := f.Stat(); statErr != nil || !info.Mode().IsRegular() || held || !sys.IsAt(f, path) {
		return false
	}
	was := readOwner(f)
	return was.ID == "" || was.Host == host && err == nil
}

// lockDeadLock opens and locks a writer's lock whose owner is dead; nil if that
// cannot be said. Where the kernel's lock does not reach the owner, or does not
// work, its heartbeats show: it writes them into the file every [heartbeatEvery].
func lockDeadLock(path string, now time.Time, age time.Duration) *os.File {
	f, err := os.OpenFile(path, os.O_RDWR|sys.NoFollow|sys.NonBlock, 0)
	if err != nil {
		return nil
	}
	held, err := sys.TryLock(f)
	if host, _ := os.Hostname(); err != nil || sys.IsNetwork(f) || readOwner(f).Host != host {
		age = max(age, deadAfter)
	}
	info, statErr := f.Stat()
	if statErr != nil || !info.Mode().IsRegular() || sys.Age(info.ModTime(), now) < age || held || !sys.IsAt(f, path) {
		_ = f.Close()
		return nil
	}
	return f
}

// pruneLock is what the lock of all prunes of a directory is called, .prune.lock;
// no tarball can be called so. With two at work each would find in use what the
// other is about to remove, and remove another in its place.
const pruneLock = "prune"

// lockPrune waits for other prunes.
func (d *Dir) lockPrune(ctx context.Context) (unlock func(), err error) {
	lock, _, err := d.lock(ctx, pruneLock, tarball.Run{}, false)
	switch {
	case err == nil:
		return lock.unlock, nil
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return func() {}, nil // then above all it must work
	}
	return nil, fmt.Errorf("prune: %w", err)
}
