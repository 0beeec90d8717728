package plot

import (
	"math"
	"slices"
)

// Bars is a chart with a horizontal bar for each row, one below the other, each of parts one after
// the other: what a sum consists of. The legend names the parts, and each row ends with its sum.
type Bars struct {
	Title, Unit string
	Rows        []Row
	// Order has names of parts in the order of the legend, which decides their colours: charts
	// with the same order have the same colours. Names that are not in it come after it, as they
	// appear in the rows. Those that no row has are not in the legend.
	Order []string
}

// A Row is a bar.
type Row struct {
	Label string
	Note  string // shown after the sum
	// Parts are drawn in this order. A value that is not a number from 0 to 1e15 is not known:
	// the part is not drawn, and instead of the sum is said that it is unknown. A row without
	// parts has only its note.
	Parts []Part
}

// A Part is a part of a bar.
type Part struct {
	Name  string
	Value float64
}

// sum returns the sum of the parts that are known, and whether all are.
func (r *Row) sum() (sum float64, known bool) {
	known = true
	for _, p := range r.Parts {
		if isPart(p.Value) {
			sum += p.Value
		} else {
			known = false
		}
	}
	return sum, known && usable(sum)
}

func isPart(v float64) bool { return v >= 0 && usable(v) }

// end is the text after a bar.
func (b *Bars) end(r *Row) string {
	sum, known := r.sum()
	text := "unknown"
	switch {
	case len(r.Parts) == 0:
		return r.Note
	case known:
		text = withUnit(sum, b.Unit)
	}
	if r.Note != "" {
		text += ", " + r.Note
	}
	return text
}

func withUnit(v float64, unit string) string {
	if unit == "" {
		return number(v)
	}
	return number(v) + " " + unit
}

const (
	rowHeight = 26
	barHeight = 16
	// What labels and the texts after bars may take of the width.
	maxLabel = 250
	maxEnd   = 270
)

// SVG returns the picture.
func (b *Bars) SVG() []byte {
	var c canvas
	y := float64(margin + titleSize)
	c.text(margin, y, "start", "title", b.Title, width-2*margin)
	colour := b.colours()
	y = b.legend(&c, y+12, colour)

	label, end, most := 0.0, 0.0, 0.0
	for i := range b.Rows {
		r := &b.Rows[i]
		sum, _ := r.sum()
		label, end, most = max(label, extent(r.Label, fontSize)), max(end, extent(b.end(r), fontSize)), max(most, sum)
	}
	label, end = min(label, maxLabel), min(end, maxEnd)
	left := margin + label + 8
	scale := 0.0
	if most > 0 {
		scale = (width - left - 8 - end - margin) / most
	}
	for i := range b.Rows {
		r := &b.Rows[i]
		c.text(left-8, y+barHeight-4, "end", "", r.Label, label)
		x := left
		for _, p := range r.Parts {
			if !isPart(p.Value) || p.Value == 0 {
				continue
			}
			w := p.Value * scale
			c.rect(x, y, max(w-math.Min(1, w/4), 0), barHeight, class(colour[p.Name]), p.Name+": "+withUnit(p.Value, b.Unit))
			x += w
		}
		c.text(x+6, y+barHeight-4, "start", "", b.end(r), width-margin-x-6+1)
		y += rowHeight
	}
	return c.svg(b.Title, y+margin-(rowHeight-barHeight))
}

// colours returns the number of the colour of each name.
func (b *Bars) colours() map[string]int {
	colour := map[string]int{}
	for _, name := range b.names() {
		if _, known := colour[name]; !known {
			colour[name] = len(colour)
		}
	}
	return colour
}

func (b *Bars) names() []string {
	names := slices.Clone(b.Order)
	for _, r := range b.Rows {
		for _, p := range r.Parts {
			names = append(names, p.Name)
		}
	}
	return names
}

// legend writes the names of the parts that rows have, and returns where the rows begin.
func (b *Bars) legend(c *canvas, y float64, colour map[string]int) float64 {
	used := map[string]bool{}
	for _, r := range b.Rows {
		for _, p := range r.Parts {
			used[p.Name] = used[p.Name] || isPart(p.Value) && p.Value > 0
		}
	}
	x, lines := float64(margin), 0
	for _, name := range b.names() {
		if !used[name] {
			continue
		}
		used[name] = false // once
		const most = 180
		w := min(extent(name, fontSize), most)
		if lines == 0 || x+16+w > width-margin {
			x, lines = margin, lines+1
			y += lineHeight
		}
		c.rect(x, y-10, 11, 11, class(colour[name]), "")
		c.text(x+16, y, "start", "", name, most)
		x += 16 + w + 16
	}
	return y + 14
}
