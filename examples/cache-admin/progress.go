package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/dockercache/dockercache/cache"
)

// progress prints how far verify is: one line that is written anew on a terminal,
// a line now and then elsewhere, what a log can hold.
type progress struct {
	w        io.Writer // nil: show nothing
	terminal bool
	every    time.Duration

	mu    sync.Mutex
	shown time.Time
	most  int64
	drawn bool
}

func newProgress(stderr io.Writer, quiet bool) *progress {
	p := &progress{w: stderr, every: 30 * time.Second, shown: time.Now()}
	if f, ok := stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.terminal, p.every = true, 200*time.Millisecond
	}
	if quiet {
		p.w = nil
	}
	return p
}

func (p *progress) tell(now cache.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most = max(p.most, now.Done) // calls may come out of order
	if p.w == nil || time.Since(p.shown) < p.every {
		return
	}
	p.shown, p.drawn = time.Now(), true
	line := fmt.Sprintf("verified %s of %s", bytes(p.most), bytes(now.Total))
	if p.terminal {
		fmt.Fprintf(p.w, "\r%s\x1b[K", line)
		return
	}
	fmt.Fprintln(p.w, line)
}

// stop takes the line off the terminal.
func (p *progress) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal && p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
