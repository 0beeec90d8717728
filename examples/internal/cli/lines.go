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

	mu     sync.Mutex
	images []*line
}

type line struct {
	name      string
	now, last tarball.Progress
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
		if mine.now.Total == 0 {
			mine.last = p // what an earlier attempt left has no speed
		}
		mine.now = p
	}
	end = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
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
	var all line
	shown := 0
	for _, i := range l.images {
		if i.now.Phase != "" {
			fmt.Fprintln(l.w, phaseText(i.name, i.now))
			continue
		}
		if i.now.Total == 0 {
			continue // still asking the registry
		}
		shown++
		fmt.Fprintln(l.w, i)
		all.name = "all images"
		all.now.Done, all.now.Total = all.now.Done+i.now.Done, all.now.Total+i.now.Total
		all.last.Done += i.last.Done
		i.last = i.now
	}
	if shown > 1 {
		fmt.Fprintln(l.w, &all)
	}
}

func (i *line) String() string {
	rate := float64(i.now.Done-i.last.Done) / lineEvery.Seconds()
	text := fmt.Sprintf("%s: %s of %s, %s/s", i.name, Bytes(i.now.Done), Bytes(i.now.Total), Bytes(int64(rate)))
	if left := timeLeft(i.now.Total-i.now.Done, rate); left != "" {
		text += ", " + left
	}
	return text
}

func (l *lines) above(w io.Writer) io.Writer { return w }

func (l *lines) end() {
	l.cancel()
	<-l.done
}
