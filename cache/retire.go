package cache

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// retiredKind is the end of the name of a version that was replaced and stays for
// readers that still have it open: .<tarball>.<time, s>.<unique>.retired.
const retiredKind = "retired"

// retire gives the file at path, which is about to be replaced, a second name.
// On NFS a reader on another host would otherwise get ESTALE in the middle. Where
// there are no hard links nothing is done.
func retire(path string, now time.Time) {
	dir, name := filepath.Split(path)
	_ = os.Link(path, filepath.Join(dir, fmt.Sprintf(".%s.%d.%016x.%s", name, now.Unix(), rand.Uint64(), retiredKind)))
}

// sweepGrace is how long a retired version stays that is there. Where none are made
// they may be those of hosts for which this directory is on a network.
func (d *Dir) sweepGrace() time.Duration { return cmp.Or(d.grace, DefaultGrace) }

// sweepRetired removes the retired versions of the tarball called name that are
// older than grace.
func sweepRetired(dir, name string, grace time.Duration, now time.Time) {
	for _, path := range retiredOf(dir, name) {
		if at, ok := retiredAt(path); ok && ageOf(at, now) >= grace {
			_ = os.Remove(path)
		}
	}
}

func retiredOf(dir, name string) []string { return temporaries(dir, name, retiredKind) }

func retiredAt(path string) (time.Time, bool) {
	parts := strings.Split(filepath.Base(path), ".")
	if len(parts) < 4 {
		return time.Time{}, false
	}
	var seconds int64
	if n, err := fmt.Sscanf(parts[len(parts)-3], "%d", &seconds); n != 1 || err != nil {
		return time.Time{}, false
	}
	return time.Unix(seconds, 0), true
}
