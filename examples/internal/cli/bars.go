package cli

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/dockercache/dockercache/cache/tarball"
)

// bars is one bar for each image that is being worked on, and from the second on one
// for all.
type bars struct {
	container *mpb.Progress

	mu    sync.Mutex
	count int
	sums  tarball.Progress
	total *bar
}

func newBars(w io.Writer) *bars {
	return &bars{container: mpb.New(mpb.WithOutput(w), mpb.WithAutoRefresh())}
}

func (b *bars) Track(name string) (report func(tarball.Progress), end func()) {
	var mine *bar
	var phase *mpb.Bar // in place of it
	var last tarball.Progress
	report = func(p tarball.Progress) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if phase = setPhase(b.container, phase, name, p); phase != nil {
			if mine != nil {
				mine.Abort(true)
				mine = nil
			}
			return
		}
		if mine == nil { // not before: an image that is unchanged needs no bar
			mine = newBar(b.container, name, mpb.BarRemoveOnComplete())
			if last == (tarball.Progress{}) {
				b.count++
			}
			if b.count == 2 && b.total == nil {
				b.total = newBar(b.container, "all images", mpb.BarPriority(1<<30))
			}
		}
		b.sums.Done += p.Done - last.Done
		b.sums.Total += p.Total - last.Total
		last = p
		mine.set(p)
		if b.total != nil {
			b.total.set(b.sums)
		}
	}
	end = func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if mine != nil {
			mine.Abort(true)
		}
		if phase != nil {
			phase.Abort(true)
		}
	}
	return report, end
}

func (b *bars) above(w io.Writer) io.Writer {
	if isTerminal(w) {
		return &aboveBars{b.container, w}
	}
	return w
}

// aboveBars prints above the bars, to the same terminal, and after their end as well.
type aboveBars struct {
	bars     *mpb.Progress
	terminal io.Writer
}

func (a *aboveBars) Write(p []byte) (int, error) {
	n, err := a.bars.Write(p)
	if errors.As(err, new(mpb.ErrDone[*mpb.Progress])) {
		return a.terminal.Write(p)
	}
	return n, err
}

func (b *bars) end() {
	b.mu.Lock()
	if b.total != nil {
		b.total.Abort(true)
	}
	b.mu.Unlock()
	b.container.Wait()
}

// bar is a bar with its pace.
type bar struct {
	*mpb.Bar

	mu   sync.Mutex // is never held while a method of Bar is called: that waits for the decorators
	pace pace
}

func newBar(c *mpb.Progress, name string, options ...mpb.BarOption) *bar {
	b := &bar{}
	options = append(options,
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.Any(func(s decor.Statistics) string { return Bytes(s.Current) + " of " + Bytes(s.Total) }, decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string { return b.speedText(s.Total-s.Current, time.Now()) }, decor.WCSyncSpaceR)))
	b.Bar = c.AddBar(0, options...)
	return b
}

// speedText is how fast bytes come, and how long the rest takes.
func (b *bar) speedText(rest int64, now time.Time) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	speed := b.pace.speed(now)
	text := Bytes(int64(speed)) + "/s"
	if left := timeLeft(rest, speed); left != "" {
		text += ", " + left
	}
	return text
}

func (b *bar) set(p tarball.Progress) {
	// Bytes come in small pieces from many connections: each would be drawn.
	const least = 100 * time.Millisecond
	now := time.Now()
	b.mu.Lock()
	if now.Sub(b.pace.at) < least && p.Done < p.Total {
		b.mu.Unlock()
		return
	}
	b.pace.add(p.Done, now)
	b.mu.Unlock()
	b.SetTotal(p.Total, false)
	b.SetCurrent(p.Done)
}
