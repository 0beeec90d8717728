package plot

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Lines is a chart of how numbers grow, with the name of each series at its end. An axis is
// logarithmic if all its values are above 0 and the largest is at least a thousand times the
// smallest; a linear one begins at 0 unless there are values below.
type Lines struct {
	Title  string
	X, Y   string // what the axes show, with the unit
	Series []Series
}

// A Series is a line.
type Series struct {
	Name string
	// Points are drawn from left to right. A point of which a coordinate is not a number from
	// -1e15 to 1e15 is left out, and the line has a gap there.
	Points []Point
}

// A Point is a point of a line.
type Point struct{ X, Y float64 }

func (p Point) usable() bool { return usable(p.X) && usable(p.Y) }

const (
	plotHeight = 300
	leftAxis   = 64 // room for the numbers of the axis
	maxName    = 220
	nameHeight = 15
)

// SVG returns the picture.
func (l *Lines) SVG() []byte {
	var c canvas
	series := make([]Series, len(l.Series))
	var xs, ys []float64
	names := 0.0
	for i, s := range l.Series {
		points := slices.Clone(s.Points)
		for i, p := range points {
			points[i] = Point{round(p.X), round(p.Y)}
		}
		slices.SortStableFunc(points, func(a, b Point) int { return cmp.Compare(a.X, b.X) })
		series[i] = Series{s.Name, points}
		names = max(names, min(extent(s.Name, fontSize), maxName))
		for _, p := range points {
			if p.usable() {
				xs, ys = append(xs, p.X), append(ys, p.Y)
			}
		}
	}
	top := float64(margin + titleSize + 2*lineHeight + 4)
	height := max(plotHeight, float64(len(series)*nameHeight))
	x, y := newAxis(xs, leftAxis, width-margin-names-14), newAxis(ys, top+height, top)

	c.text(margin, margin+titleSize, "start", "title", l.Title, width-2*margin)
	c.text(margin, top-14, "start", "", l.Y, width-2*margin)
	for _, v := range y.ticks {
		c.grid(x.from, y.at(v), x.to, y.at(v))
		c.text(x.from-6, y.at(v)+4, "end", "", number(v), leftAxis-6)
	}
	for _, v := range x.ticks {
		c.grid(x.at(v), y.to, x.at(v), y.from)
		c.text(x.at(v), y.from+lineHeight, "middle", "", number(v), leftAxis)
	}
	c.text((x.from+x.to)/2, y.from+2*lineHeight, "middle", "", l.X, x.to-x.from)
	var labels []label
	for i, s := range series {
		if end, ok := c.line(s, class(i), x, y); ok {
			labels = append(labels, label{s.Name, class(i), end, end})
		}
	}
	for _, n := range spread(labels, y.to, y.from) {
		fmt.Fprintf(&c.body, `<path d="M%s %sL%s %s" class="line %s" stroke-opacity=".6"/>`+"\n", px(x.to), px(n.wanted), px(x.to+10), px(n.at), n.class)
		c.text(x.to+14, n.at+4, "start", "", n.name, maxName+1)
	}
	return c.svg(l.Title, y.from+2*lineHeight+margin)
}

func (c *canvas) grid(x1, y1, x2, y2 float64) {
	fmt.Fprintf(&c.body, `<path d="M%s %sL%s %s" class="grid"/>`+"\n", px(x1), px(y1), px(x2), px(y2))
}

// line draws a series, to the right end of the chart, and returns at which height it ends.
func (c *canvas) line(s Series, class string, x, y axis) (end float64, ok bool) {
	var path strings.Builder
	var drawn []Point
	move := "M"
	for _, p := range s.Points {
		if !p.usable() {
			move = "M"
			continue
		}
		fmt.Fprintf(&path, "%s%s %s", move, px(x.at(p.X)), px(y.at(p.Y)))
		move = "L"
		drawn = append(drawn, p)
	}
	if len(drawn) == 0 {
		return 0, false
	}
	fmt.Fprintf(&c.body, `<g class="%s"><title>%s</title><path d="%s" class="line"/>`, class, escape(s.Name), path.String())
	if len(drawn) <= 40 {
		for _, p := range drawn {
			fmt.Fprintf(&c.body, `<circle cx="%s" cy="%s" r="3"/>`, px(x.at(p.X)), px(y.at(p.Y)))
		}
	}
	last := drawn[len(drawn)-1]
	if end = y.at(last.Y); x.at(last.X) < x.to-1 { // a thin line leads to the name
		fmt.Fprintf(&c.body, `<path d="M%s %sH%s" stroke-opacity=".4" stroke-dasharray="2 4"/>`, px(x.at(last.X)), px(end), px(x.to))
	}
	c.body.WriteString("</g>\n")
	return end, true
}

// A label is the name of a series.
type label struct {
	name, class string
	wanted, at  float64 // heights
}

// spread moves labels so that they do not cover each other, as little as a simple rule can: down
// from the first, and those that are then too low up again.
func spread(labels []label, top, bottom float64) []label {
	slices.SortStableFunc(labels, func(a, b label) int { return cmp.Compare(a.wanted, b.wanted) })
	at := top - nameHeight
	for i := range labels {
		at = max(labels[i].wanted, at+nameHeight)
		labels[i].at = at
	}
	at = bottom + nameHeight
	for i := len(labels) - 1; i >= 0; i-- {
		at = min(labels[i].at, at-nameHeight)
		labels[i].at = at
	}
	return labels
}

// An axis maps numbers to pixels.
type axis struct {
	low, high float64 // the numbers at its ends, or their logarithms
	log       bool
	from, to  float64 // pixels
	ticks     []float64
}

// at returns where a number is, in pixels.
func (a axis) at(v float64) float64 {
	if a.log {
		v = math.Log10(v)
	}
	return a.from + (v-a.low)/(a.high-a.low)*(a.to-a.from)
}

// newAxis returns an axis on which all values are, with ticks that are easy to read.
func newAxis(values []float64, from, to float64) axis {
	a := axis{from: from, to: to}
	low, high := 0.0, 1.0
	if len(values) > 0 {
		low, high = slices.Min(values), slices.Max(values)
	}
	if a.log = low > 0 && high >= 1000*low; a.log {
		a.low, a.high = math.Floor(math.Log10(low)+1e-9), math.Ceil(math.Log10(high)-1e-9)
		step := math.Ceil((a.high - a.low) / 8)
		for e := a.low; e <= a.high; e += step {
			a.ticks = append(a.ticks, math.Pow(10, e))
		}
		return a
	}
	if low, high = min(low, 0), max(high, 0); low == high {
		high = 1
	}
	step := niceStep((high - low) / 5)
	a.low, a.high = math.Floor(low/step+1e-9)*step, math.Ceil(high/step-1e-9)*step
	for i := range int(math.Round((a.high-a.low)/step)) + 1 {
		a.ticks = append(a.ticks, a.low+float64(i)*step)
	}
	return a
}

// niceStep returns 1, 2 or 5 times a power of 10, which is not below v.
func niceStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 5} {
		if v <= f*power*(1+1e-9) {
			return f * power
		}
	}
	return 10 * power
}
