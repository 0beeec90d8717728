package cli

import (
	"math"
	"time"
)

// A pace is how fast bytes come: the average of the past, of which each moment counts
// less the longer ago it was. While nothing comes it falls.
type pace struct {
	at           time.Time
	done         int64
	rate, weight float64 // bytes per second; less than 1 at the beginning, see speed
}

// paceAge is how long ago a moment is that counts 1/e of the present one.
const paceAge = 5 * time.Second

// add records how many bytes there are. What there is at the first time has no speed:
// an earlier attempt left it.
func (p *pace) add(done int64, now time.Time) {
	if elapsed := now.Sub(p.at); !p.at.IsZero() && elapsed > 0 {
		keep := math.Exp(-elapsed.Seconds() / paceAge.Seconds())
		p.rate = keep*p.rate + (1-keep)*float64(done-p.done)/elapsed.Seconds()
		p.weight = keep*p.weight + 1 - keep
	}
	p.at, p.done = now, done
}

// speed returns the pace in bytes per second, if nothing came since the last add. It is
// an average also at the beginning, when the past is short.
func (p *pace) speed(now time.Time) float64 {
	since := *p
	since.add(p.done, now)
	if since.weight == 0 {
		return 0
	}
	return max(since.rate/since.weight, 0)
}

// timeLeft is how long the rest takes, "" if that is not known: nothing comes, or all
// is there and something else is going on.
func timeLeft(rest int64, speed float64) string {
	left := float64(rest) / speed * float64(time.Second)
	if rest <= 0 || speed < 1 || left > float64(100*time.Hour) {
		return ""
	}
	return max(time.Duration(left).Round(time.Second), time.Second).String() + " left"
}
