package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/dockercache/dockercache/cache/tarball"
)

// lines prints a line for each image every so often: what a log can hold.
type lines struct {
	w      io.Writer
	cancel context.CancelFunc
	done   chan struct{}

	all tally

	mu     sync.Mutex
	images []*line
}

type line struct {
	name  string
	tally tally
	phase tarball.Progress // in place of it, when it has a name
}

// lineEvery keeps a CI system from taking a long pull for a job that hangs, and
// its log short.
const lineEvery = 30 * time.Second

func newLines(w io.Writer) *lines {
	ctx, cancel := context.WithCancel(context.Background())
	l := &lines{w: w, cancel: cancel, done: make(chan struct{})}
	go l.print(ctx)
	return l
}

func (l *lines) Track(name string) (report func(tarball.Progress), end func()) {
	mine := &line{name: name}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.images = append(l.images, mine)
	report = func(p tarball.Progress) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if mine.phase = p; p.Phase == "" {
			mine.tally.set(p, &l.all, time.Now())
		}
	}
	end = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		mine.tally.end(&l.all)
		l.images = slices.DeleteFunc(l.images, func(i *line) bool { return i == mine })
	}
	return report, end
}

func (l *lines) print(ctx context.Context) {
	defer close(l.done)
	ticker := time.NewTicker(lineEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			l.printOnce()
		}
	}
}

func (l *lines) printOnce() {
	l.mu.Lock()
	defer l.mu.Unlock()
	shown, now := 0, time.Now()
	for _, i := range l.images {
		if i.phase.Phase != "" {
			fmt.Fprintln(l.w, phaseText(i.name, i.phase))
			continue
		}
		if i.tally.last().Total == 0 {
			continue // still asking the registry
		}
		shown++
		l.printLine(i.name, &i.tally, now)
	}
	if shown > 1 {
		l.printLine("all images", &l.all, now)
	}
}

func (l *lines) printLine(name string, t *tally, now time.Time) {
	fmt.Fprintf(l.w, "%s: %s, %s\n", name, t.bytes(), t.speed(now))
}

func (l *lines) above(w io.Writer) io.Writer { return w }

func (l *lines) end() {
	l.cancel()
	<-l.done
}
