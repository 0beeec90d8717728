package progress

import (
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/dockercache/dockercache/cache"
)

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

func (b *bars) Image(name string) (tell func(cache.Progress), end func()) {
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

func (b *bars) Above(w io.Writer) io.Writer {
	if IsTerminal(w) {
		return b.container // prints above the bars, to the same terminal
	}
	return w
}

func (b *bars) Stop() {
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
