package cli

import (
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/dockercache/dockercache/cache/tarball"
)

// phaseText is how far a phase is, without a speed: an engine reports what it has unpacked
// in large steps, or not at all.
func phaseText(name string, p tarball.Progress) string {
	text := name + ": " + string(p.Phase)
	if p.Total > 0 {
		text += ", " + Bytes(p.Done) + " of " + Bytes(p.Total)
	}
	return text
}

// setPhase makes a bar show a phase, which it may not have been there for, and returns it;
// nil when there is no phase any more.
func setPhase(c *mpb.Progress, bar *mpb.Bar, name string, p tarball.Progress) *mpb.Bar {
	switch {
	case p.Phase == "" && bar != nil:
		bar.Abort(true)
		return nil
	case p.Phase == "":
		return nil
	case bar == nil:
		text := func(s decor.Statistics) string {
			return phaseText(name, tarball.Progress{Phase: p.Phase, Done: s.Current, Total: s.Total})
		}
		bar = c.AddBar(0, mpb.BarRemoveOnComplete(), mpb.PrependDecorators(decor.Any(text, decor.WCSyncSpaceR)), mpb.AppendDecorators(decor.Elapsed(decor.ET_STYLE_GO)))
	}
	bar.SetTotal(p.Total, false)
	bar.SetCurrent(p.Done)
	return bar
}
