// Package plot draws charts as SVG: bars that consist of parts, and lines.
//
// A picture has no background. Its colours can be read on a light and on a dark one, and a
// browser that knows which of the two its user prefers takes those that suit it best. The same
// chart is always the same bytes.
//
// Names may be any text: what XML cannot contain and what would change the direction of text is
// replaced, and of what is too long the middle is left out, with the whole as the tooltip.
package plot

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	width      = 800 // of a picture, px
	margin     = 12
	fontSize   = 12
	lineHeight = 18
	titleSize  = 15
	// limit is what no number in a chart may be beyond. What is, is a fault in a measurement.
	limit = 1e15
	// Below this a number is drawn as 0.
	tiny = 1e-9
)

// colours are those of parts and lines, in order: for a light background, and for a dark one.
// The first half are eight that differ, the second half the same, paler.
var colours = [...][2]string{
	{"#2f6fb5", "#5b9be0"}, {"#d9730d", "#f0954a"}, {"#2e8b57", "#4fb77d"}, {"#c83e4d", "#ef6b78"},
	{"#7d57c2", "#a98be8"}, {"#12838f", "#3fb6c4"}, {"#a67c00", "#d8ae2c"}, {"#b8478f", "#e07cbb"},
	{"#7fb0e0", "#386ca5"}, {"#efae74", "#b0631f"}, {"#86c6a0", "#337f56"}, {"#e89aa2", "#ab4752"},
	{"#b6a0de", "#7256b3"}, {"#79c2cb", "#25808b"}, {"#d6b858", "#967a1d"}, {"#dba0c6", "#9c4d7f"},
}

// class is the class of the colour with a number. After the last one the first follows again.
func class(i int) string { return "c" + strconv.Itoa(i%len(colours)) }

// style returns the style sheet. The colours of texts are between those that suit either
// background, for where a picture is on the other than the user prefers.
func style() string {
	var light, dark strings.Builder
	for i, c := range colours {
		fmt.Fprintf(&light, ".%s{fill:%s;stroke:%s}", class(i), c[0], c[0])
		fmt.Fprintf(&dark, ".%s{fill:%s;stroke:%s}", class(i), c[1], c[1])
	}
	return "text{font:" + strconv.Itoa(fontSize) + "px system-ui,sans-serif;fill:#656d76;stroke:none}" +
		".title{font-size:" + strconv.Itoa(titleSize) + "px;font-weight:600}" +
		".grid{stroke:#8b949e;stroke-opacity:.3}rect{stroke-width:0}" +
		light.String() +
		"@media (prefers-color-scheme:dark){text{fill:#98a2ad}" + dark.String() + "}" +
		".line{fill:none;stroke-width:2}"
}

// A canvas is a picture that is being drawn.
type canvas struct{ body bytes.Buffer }

// svg returns the picture, which is that high.
func (c *canvas) svg(title string, height float64) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %s" width="%[1]d" height="%[2]s" role="img">`+"\n", width, px(height))
	fmt.Fprintf(&b, "<title>%s</title>\n<style>%s</style>\n", escape(title), style())
	b.Write(c.body.Bytes())
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// text writes a text of no more than that many pixels: anchor is "start", "middle" or "end".
func (c *canvas) text(x, y float64, anchor, class, text string, room float64) {
	size := float64(fontSize)
	if class == "title" {
		size = titleSize * 1.08 // it is bold
	}
	shown, cut := truncate(text, room, size)
	fmt.Fprintf(&c.body, `<text x="%s" y="%s"`, px(x), px(y))
	if anchor != "start" {
		fmt.Fprintf(&c.body, ` text-anchor="%s"`, anchor)
	}
	if class != "" {
		fmt.Fprintf(&c.body, ` class="%s"`, class)
	}
	c.body.WriteString(">")
	if cut {
		fmt.Fprintf(&c.body, "<title>%s</title>", escape(text))
	}
	fmt.Fprintf(&c.body, "%s</text>\n", escape(shown))
}

func (c *canvas) rect(x, y, w, h float64, class, tooltip string) {
	fmt.Fprintf(&c.body, `<rect x="%s" y="%s" width="%s" height="%s" class="%s">`, px(x), px(y), px(w), px(h), class)
	if tooltip != "" {
		fmt.Fprintf(&c.body, "<title>%s</title>", escape(tooltip))
	}
	c.body.WriteString("</rect>\n")
}

// px is a length in a picture, to a tenth of a pixel.
func px(v float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
}

// escape makes a text one that XML can contain, on one line and in one direction.
func escape(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if unicode.In(r, unicode.Cc, unicode.Cf) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder never fails
	return b.String()
}

// truncate cuts what is in the middle of a text, so that it takes about so many pixels, and
// reports whether it has. Names of images begin and end with what they are known by.
func truncate(text string, room, size float64) (shown string, cut bool) {
	if extent(text, size) <= room {
		return text, false
	}
	room -= advance('…', size)
	head, tail := 0, len(text)
	for left := room / 3; head < tail; {
		r, n := utf8.DecodeRuneInString(text[head:])
		if left -= advance(r, size); left < 0 {
			break
		}
		head += n
		room -= advance(r, size)
	}
	for head < tail {
		r, n := utf8.DecodeLastRuneInString(text[:tail])
		if room -= advance(r, size); room < 0 {
			break
		}
		tail -= n
	}
	return text[:head] + "…" + text[tail:], true
}

// extent is about how long a text is, in pixels. It is not known with which font it will be
// shown: most are not wider.
func extent(text string, size float64) (sum float64) {
	for _, r := range text {
		sum += advance(r, size)
	}
	return sum
}

func advance(r rune, size float64) float64 {
	switch {
	case r >= 0x1100: // scripts of the East, and pictures
		return size
	case strings.ContainsRune("ijl.,:;'|!/ ", r):
		return 0.36 * size
	case strings.ContainsRune("mwMW@%", r):
		return 0.95 * size
	}
	return 0.63 * size
}

// usable reports whether a number can be drawn.
func usable(v float64) bool { return math.Abs(v) <= limit } // NaN is not

// round makes what is tiny 0.
func round(v float64) float64 {
	if math.Abs(v) < tiny {
		return 0
	}
	return v
}

// number is a number for people: three digits or more, and no exponent.
func number(v float64) string {
	unit := ""
	for _, u := range []struct {
		name string
		size float64
	}{{"T", 1e12}, {"G", 1e9}, {"M", 1e6}} {
		if math.Abs(v) >= 0.9995*u.size {
			v, unit = v/u.size, u.name
			break
		}
	}
	size := math.Abs(v)
	decimals := 0
	switch {
	case size == 0 || size >= 99.95:
	case size >= 9.995:
		decimals = 1
	case size >= 0.9995:
		decimals = 2
	default:
		decimals = min(2-int(math.Floor(math.Log10(size))), 9)
	}
	text := strconv.FormatFloat(v, 'f', decimals, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	}
	if text == "-0" {
		text = "0"
	}
	return text + unit
}
