package cli

import (
	"fmt"
	"sync"
	"time"

	"github.com/dockercache/dockercache/cache/tarball"
)

const (
	// paceWindow is how long ago what came counts. What comes in bursts, as from a slow
	// registry, has a rate all the same, and one that stands still is seen within seconds.
	paceWindow = 5 * time.Second
	// paceStep is how long bytes are counted together: they come in small pieces from many
	// connections.
	paceStep = 100 * time.Millisecond
	// paceLeast is the least time that a rate is of: the first bytes say nothing of the next.
	paceLeast = time.Second
)

// A window is what came in the last seconds.
type window []windowPart

type windowPart struct {
	begun time.Time
	bytes int64
}

func (w *window) add(n int64, now time.Time) {
	if last := len(*w) - 1; last >= 0 && now.Sub((*w)[last].begun) < paceStep {
		(*w)[last].bytes += n
		return
	}
	old := 0
	for old < len(*w) && now.Sub((*w)[old].begun) >= paceWindow {
		old++
	}
	*w = append((*w)[old:], windowPart{now, n})
}

// sum returns how much came in the time before now.
func (w window) sum(now time.Time) (n int64) {
	for _, p := range w {
		if now.Sub(p.begun) < paceWindow {
			n += p.bytes
		}
	}
	return n
}

// A tally is how far an image is, or all of them, and how fast that grows: by what came
// in the last seconds, whenever it is asked. It is safe for concurrent use.
type tally struct {
	mu           sync.Mutex
	progress     tarball.Progress
	begun, moved time.Time // the first time; the last time when anything came
	came, reused window    // from the source; from where it was already
}

// set records how far an image is, and adds what that is more to all. What is there at the
// first time has no rate: an earlier attempt left it.
func (t *tally) set(p tarball.Progress, all *tally, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first, was := t.begun.IsZero(), t.progress
	var came, reused int64
	if !first {
		came, reused = p.Done-p.Reused-(was.Done-was.Reused), p.Reused-was.Reused
	}
	t.progress = p
	t.add(came, reused, first, now)

	all.mu.Lock()
	defer all.mu.Unlock()
	all.progress.Done += p.Done - was.Done
	all.progress.Total += p.Total - was.Total
	all.add(came, reused, first, now)
}

// add records that so much more came, which is less than 0 when a layer has to be fetched
// again.
func (t *tally) add(came, reused int64, begins bool, now time.Time) {
	if t.begun.IsZero() {
		t.begun = now
	}
	if came > 0 {
		t.came.add(came, now)
	}
	if reused > 0 {
		t.reused.add(reused, now)
	}
	if begins || came > 0 || reused > 0 {
		t.moved = now
	}
}

// end takes what will not come any more out of all.
func (t *tally) end(all *tally) {
	p := t.last()
	all.mu.Lock()
	defer all.mu.Unlock()
	all.progress.Total -= p.Total - p.Done
}

func (t *tally) last() tarball.Progress {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.progress
}

// bytes returns how many bytes are there, of how many.
func (t *tally) bytes() string {
	p := t.last()
	return Bytes(p.Done) + " of " + Bytes(p.Total)
}

// speed returns how fast bytes come, and how long the rest takes, or for how long nothing
// has come.
func (t *tally) speed(now time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	since := max(min(now.Sub(t.begun), paceWindow), paceLeast).Seconds()
	rate, silent := float64(t.came.sum(now))/since, now.Sub(t.moved)
	text := Bytes(int64(rate)) + "/s"
	switch reused := float64(t.reused.sum(now)) / since; {
	case t.progress.Done >= t.progress.Total: // something else is going on
	case rate > 0:
		if left := timeLeft(t.progress.Total-t.progress.Done, rate, silent); left != "" {
			text += ", " + left
		}
	case reused > 0: // how long the source takes is not known
		text = Bytes(int64(reused)) + "/s reused"
	case silent >= paceWindow:
		text += fmt.Sprintf(", no bytes for %v", silent.Truncate(time.Second))
	}
	return text
}

// timeLeft is how long the rest takes, "" if that is not known: next to nothing comes. It
// is no less than the time for which nothing has come.
func timeLeft(rest int64, rate float64, silent time.Duration) string {
	left := float64(rest) / rate * float64(time.Second)
	if rate < 1 || left > float64(100*time.Hour) {
		return ""
	}
	return max(time.Duration(left), silent, time.Second).Round(time.Second).String() + " left"
}
