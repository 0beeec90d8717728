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

	all tally

	mu    sync.Mutex
	count int
	total *bar // shows all
}

func newBars(w io.Writer) *bars {
	return &bars{container: mpb.New(mpb.WithOutput(w), mpb.WithAutoRefresh())}
}

func (b *bars) Track(name string) (report func(tarball.Progress), end func()) {
	var mine *bar
	var phase *mpb.Bar // in place of it
	var image tally
	counted := false
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
			mine = newBar(b.container, name, &image, mpb.BarRemoveOnComplete())
			if !counted {
				b.count++
				counted = true
			}
			if b.count == 2 && b.total == nil {
				b.total = newBar(b.container, "all images", &b.all, mpb.BarPriority(1<<30))
			}
		}
		now := time.Now()
		image.set(p, &b.all, now)
		mine.draw(now)
		if b.total != nil {
			b.total.draw(now)
		}
	}
	end = func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		image.end(&b.all)
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

// A bar shows a tally. Its texts are of the moment when it is drawn, which is also when
// nothing comes.
type bar struct {
	*mpb.Bar
	tally *tally
	drawn time.Time
}

func newBar(c *mpb.Progress, name string, t *tally, options ...mpb.BarOption) *bar {
	options = append(options,
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.Any(func(decor.Statistics) string { return t.bytes() }, decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return t.speed(time.Now()) }, decor.WCSyncSpaceR)))
	return &bar{Bar: c.AddBar(0, options...), tally: t}
}

// draw gives the bar its length. It holds no lock that the texts need: the methods of Bar
// wait for them.
func (b *bar) draw(now time.Time) {
	p := b.tally.last()
	// Bytes come in small pieces from many connections: each would be drawn.
	if now.Sub(b.drawn) < paceStep && p.Done < p.Total {
		return
	}
	b.drawn = now
	b.SetTotal(p.Total, false)
	b.SetCurrent(p.Done)
}
