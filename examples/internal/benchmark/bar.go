//go:build linux

package main

import "fmt"

// A bar is what the project wants to reach, and what was reached.
type bar struct {
	text, reached string
	met           bool
}

const (
	// connections that docker-cache has by default.
	connections = 16
	// mostMemory is what it may need for any image, in MiB.
	mostMemory = 64
	// inFlight is what a connection may lose when the program is killed: what it
	// has read and not noted in its journal (1 MiB), and what is on the way.
	inFlight = 2 << 20
)

// bars returns those that were measured.
func (b *bench) bars() []bar {
	var bars []bar
	add := func(met bool, reached, text string) { bars = append(bars, bar{text, reached, met}) }
	if mine, best := b.versus("giant", limited); mine != nil {
		times := best.median(wall) / mine.median(wall)
		add(times >= 10, fmt.Sprintf("%.1f× (%s)", times, best.tool), "(b) one giant layer: at least 10× faster than the fastest of crane, regctl, skopeo")
	}
	if mine := b.find("giant", limited, ours); mine != nil {
		part := float64(mine.work.size) / mine.median(wall) / (connections * limitedRate)
		add(part >= 0.85, fmt.Sprintf("%.0f %%", part*100), "(b) one giant layer: at least 85 % of connections × limit")
	}
	if mine, best := b.versus("small", limited); mine != nil {
		times := best.median(wall) / mine.median(wall)
		add(times >= 5, fmt.Sprintf("%.1f× (%s)", times, best.tool), "(b) forty small layers: at least 5× faster")
	}
	if mine, best := b.versus("big", straight); mine != nil {
		part := mine.median(wall) / best.median(wall)
		add(part <= 0.8, fmt.Sprintf("%.2f× (%s)", part, best.tool), "(a) four big layers: wall at most 0.8× of the fastest peer")
		part = mine.median(cpu) / best.median(cpu)
		add(part <= 1, fmt.Sprintf("%.2f× (%s)", part, best.tool), "(a) four big layers: CPU at most 1.0× of the fastest peer")
	}
	for _, w := range b.options.selected() {
		mine, docker := b.find(w.name, straight, ours), b.find(w.name, straight, "docker")
		if mine == nil || docker == nil {
			continue
		}
		times := docker.median(wall) / mine.median(wall)
		add(times >= 15, fmt.Sprintf("%.1f×", times), fmt.Sprintf("(a) %s: at least 15× faster than docker pull, tag, save", w.name))
	}
	most := 0.0
	for _, r := range b.rows {
		if values := r.values(peak); r.tool == ours && len(values) > 0 {
			most = max(most, values[len(values)-1])
		}
	}
	add(most <= mostMemory, fmt.Sprintf("%.0f MiB", most), fmt.Sprintf("peak memory, any image: at most %d MiB", mostMemory))
	if k := b.kill; k != nil {
		extra := k.before + k.again - k.size // given twice by the registry
		met := k.again <= k.size-k.before+connections*inFlight
		add(met, fmt.Sprintf("%.1f %% (%.1f MiB) in %.2f s; killed at %.1f %%, so %.1f MiB came twice", 100*float64(k.again)/float64(k.size), float64(k.again)/(1<<20), k.wall.Seconds(), 100*float64(k.before)/float64(k.size), float64(extra)/(1<<20)),
			"(b) one giant layer, SIGKILL at 90 %, run again: at most 10 % and the ranges in flight are downloaded again")
	}
	if b.refresh != nil {
		bars = append(bars, b.refresh.bars()...)
	}
	if b.loads != nil {
		bars = append(bars, b.loads.bars()...)
	}
	return bars
}

// versus returns our row and that of the fastest peer but docker; nil if one of
// them was not measured.
func (b *bench) versus(work, link string) (mine, best *row) {
	for _, peer := range []string{"crane", "regctl", "skopeo"} {
		if r := b.find(work, link, peer); r != nil && (best == nil || r.median(wall) < best.median(wall)) {
			best = r
		}
	}
	if mine = b.find(work, link, ours); mine == nil || best == nil {
		return nil, nil
	}
	return mine, best
}
