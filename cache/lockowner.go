package cache

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// lockSize is the size of a lock's file: always the same, so that it is written over in
// one call and never seen half.
const lockSize = 1 << 10

// An owner is the content of the file .<tarball>.lock: who writes that tarball.
type owner struct {
	ID   string `json:"id"` // of this lock, random
	Host string `json:"host"`
	PID  int    `json:"pid"`
	tarball.Run
	Beat int64 `json:"beat"` // counts the heartbeats
	// Progress counts those before which the work went on, see [flow]. Owners of versions
	// before do not say it, so that it is 0.
	Progress int64 `json:"progress,omitempty"`
}

func (o owner) String() string { return fmt.Sprintf("process %d on %s", o.PID, o.Host) }

// newOwner returns what this process is called in a lock.
func newOwner(run tarball.Run) owner {
	host, _ := os.Hostname() // "" is a host like any other
	return owner{ID: fmt.Sprintf("%016x", rand.Uint64()), Host: host, PID: os.Getpid(), Run: run}
}

// record is what a lock's file holds: JSON, and spaces up to its size.
func (o owner) record() []byte {
	raw, _ := json.Marshal(o) // strings and numbers: cannot fail
	return append(raw, bytes.Repeat([]byte(" "), max(lockSize-len(raw), 0))...)
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
