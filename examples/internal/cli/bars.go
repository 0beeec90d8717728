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

func (b *bar) set(p tarball.Progress) {
	// Bytes come in small pieces from many connections: measured one by one they would
	// have no speed.
	const least = 100 * time.Millisecond
	now := time.Now()
	first := b.at.IsZero()
	if now.Sub(b.at) < least && p.Done < p.Total {
		return
	}
	b.SetTotal(p.Total, false)
	if first { // what an earlier attempt left has no speed
		b.SetCurrent(p.Done)
	} else {
		b.EwmaSetCurrent(p.Done, now.Sub(b.at))
	}
	b.at = now
}
