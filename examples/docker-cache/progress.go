package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/dockercache/dockercache/cache"
)

// progress shows how far the images are, on standard error.
type progress interface {
	// image begins to show an image, and returns what to tell about it and what
	// to call at its end.
	image(name string) (tell func(cache.Progress), end func())
	// above returns where to print so that it stands above what is shown.
	above(w io.Writer) io.Writer
	// stop ends it.
	stop()
}

// newProgress shows bars on a terminal, and lines now and then elsewhere.
func newProgress(stderr io.Writer, quiet bool) progress {
	if quiet {
		return noProgress{}
	}
	if isTerminal(stderr) {
		return newBars(stderr)
	}
	return newLines(stderr)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

type noProgress struct{}

func (noProgress) image(string) (func(cache.Progress), func()) { return nil, func() {} }
func (noProgress) above(w io.Writer) io.Writer                 { return w }
func (noProgress) stop()                                       {}

// bars is one bar for each image that is being read, and one for all.
type bars struct {
	container *mpb.Progress
	total     *bar

	mu   sync.Mutex
	sums cache.Progress
}

func newBars(w io.Writer) *bars {
	b := &bars{container: mpb.New(mpb.WithOutput(w), mpb.WithAutoRefresh())}
	b.total = newBar(b.container, "all images", mpb.BarPriority(1<<30))
	return b
}

func (b *bars) image(name string) (tell func(cache.Progress), end func()) {
	var mine *bar
	var last cache.Progress
	tell = func(p cache.Progress) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if mine == nil { // not before: an image that is unchanged needs no bar
			mine = newBar(b.container, name, mpb.BarRemoveOnComplete())
		}
		b.sums.Done += p.Done - last.Done
		b.sums.Total += p.Total - last.Total
		last = p
		mine.set(p)
		b.total.set(b.sums)
	}
	end = func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if mine != nil {
			mine.Abort(true)
		}
	}
	return tell, end
}

func (b *bars) above(w io.Writer) io.Writer {
	if isTerminal(w) {
		return b.container // prints above the bars, to the same terminal
	}
	return w
}

func (b *bars) stop() {
	b.total.Abort(true)
	b.container.Wait()
}

// bar is a bar whose speed is measured from call to call.
type bar struct {
	*mpb.Bar
	at time.Time
}

// speedAge is over how many measurements, of 100 ms and more, the speed is
// averaged.
const speedAge = 15

func newBar(c *mpb.Progress, name string, options ...mpb.BarOption) *bar {
	options = append(options,
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.CountersKibiByte("% .1f of % .1f", decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.EwmaSpeed(decor.SizeB1024(0), "% .1f", speedAge, decor.WCSyncSpace), decor.Name(" "), decor.EwmaETA(decor.ET_STYLE_GO, speedAge, decor.WCSyncSpace)))
	return &bar{Bar: c.AddBar(0, options...)}
}

func (b *bar) set(p cache.Progress) {
	// Bytes come in pieces of 256 KiB from many connections: measured one by
	// one they would have no speed.
	const least = 100 * time.Millisecond
	now := time.Now()
	first := b.at.IsZero()
	if now.Sub(b.at) < least && p.Done < p.Total {
		return
	}
	b.SetTotal(p.Total, false)
	if first { // what an earlier run left has no speed
		b.SetCurrent(p.Done)
	} else {
		b.EwmaSetCurrent(p.Done, now.Sub(b.at))
	}
	b.at = now
}

// lines prints a line for each image every so often: what a log can hold.
type lines struct {
	w    io.Writer
	end  context.CancelFunc
	done chan struct{}

	mu     sync.Mutex
	images []*line
}

type line struct {
	name      string
	now, last cache.Progress
}

// lineEvery keeps a CI system from taking a long pull for a job that hangs, and
// its log short.
const lineEvery = 30 * time.Second

func newLines(w io.Writer) *lines {
	ctx, cancel := context.WithCancel(context.Background())
	l := &lines{w: w, end: cancel, done: make(chan struct{})}
	go l.print(ctx)
	return l
}

func (l *lines) image(name string) (tell func(cache.Progress), end func()) {
	mine := &line{name: name}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.images = append(l.images, mine)
	tell = func(p cache.Progress) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if mine.now.Total == 0 {
			mine.last = p // what an earlier run left has no speed
		}
		mine.now = p
	}
	end = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i := range l.images {
			if l.images[i] == mine {
				l.images = append(l.images[:i], l.images[i+1:]...)
				return
			}
		}
	}
	return tell, end
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
	text := fmt.Sprintf("%s: %s of %s, %s/s", i.name, size(i.now.Done), size(i.now.Total), size(int64(rate)))
	if rate > 0 {
		left := time.Duration(float64(i.now.Total-i.now.Done) / rate * float64(time.Second))
		text += ", " + left.Round(time.Second).String() + " left"
	}
	return text
}

func (l *lines) above(w io.Writer) io.Writer { return w }

func (l *lines) stop() {
	l.end()
	<-l.done
}

// size is a number of bytes for people.
func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
