package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files")

// phases are the names in the pictures.
var phases = []string{"resolve", "first_byte", "fetch", "hash", "copy", "publish", "find", "lock", "stream", "engine", "verify"}

func ways() *Bars {
	return &Bars{Title: "Seconds for each job", Unit: "s", Order: phases, Rows: []Row{
		{"plain pull", "", []Part{{"resolve", 0.8}, {"fetch", 655}, {"engine", 214}}},
		{"tarball and docker load", "", []Part{{"stream", 130}, {"engine", 214}}},
		{"load-image, cold", "recommended", []Part{{"find", 0.2}, {"stream", 41.5}, {"engine", 214}, {"verify", 1.1}}},
		{"load-image, delta", "", []Part{{"find", 0.2}, {"stream", 3.25}, {"engine", 12}, {"verify", 1.1}}},
		{"load-image, present", "", []Part{{"find", 0.2}}},
		{"engine-root", "no reflinks here", nil},
		{"keep-loaded", "", []Part{{"find", 0}}},
		{"serve-cache", "not measured", []Part{{"fetch", math.NaN()}, {"engine", 214}}},
	}}
}

func growth() *Lines {
	l := &Lines{Title: "Seconds in all, over jobs", X: "jobs", Y: "seconds"}
	for _, w := range []struct {
		name         string
		once, perJob float64
	}{{"plain pull", 0, 870}, {"tarball and docker load", 700, 344}, {"load-image", 700, 257}, {"keep-loaded", 956, 0.2}} {
		s := Series{Name: w.name}
		for jobs := 1.0; jobs <= 1000; jobs *= 10 {
			s.Points = append(s.Points, Point{jobs, w.once + jobs*w.perJob})
		}
		l.Series = append(l.Series, s)
	}
	return l
}

// pictures are looked at when they change, on a light and on a dark background.
func pictures() map[string][]byte {
	one := &Bars{Title: "One row", Unit: "s", Rows: []Row{{"ghcr.io/example/image:tag", "", []Part{{"fetch", 12.34}}}}}
	thirty, many := &Bars{Title: "Thirty rows", Unit: "s", Order: phases}, &Lines{Title: "Thirty lines", X: "days", Y: "hours saved"}
	for i := range 30 {
		r := Row{Label: fmt.Sprintf("123456789012.dkr.ecr.us-east-1.amazonaws.com/pytorch/ci-image:pytorch-linux-jammy-rocm-n-py3-%d", i), Note: fmt.Sprintf("runner-%d.example.internal", i)}
		s := Series{Name: r.Label}
		for j, name := range phases {
			r.Parts = append(r.Parts, Part{name, float64((i*7+j*11)%13) * 1.7})
		}
		for day := range 10 {
			s.Points = append(s.Points, Point{float64(day), float64((i*5+day*3)%17) - 4})
		}
		thirty.Rows, many.Series = append(thirty.Rows, r), append(many.Series, s)
	}
	point := &Lines{Title: "One point", X: "jobs", Y: "seconds", Series: []Series{{"image", []Point{{3, 40}}}}}
	return map[string][]byte{
		"ways": ways().SVG(), "growth": growth().SVG(), "one-row": one.SVG(), "thirty-rows": thirty.SVG(), "thirty-lines": many.SVG(), "one-point": point.SVG(),
	}
}

func TestGolden(t *testing.T) {
	for name, svg := range pictures() {
		path := filepath.Join("testdata", name+".svg")
		if *update {
			require.NoError(t, os.WriteFile(path, svg, 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(want, svg), "%s differs: look at what \"go test -update\" makes of it", path)
	}
}

// texts returns all texts of a picture that is well-formed, and fails if an element is none of
// those that this package writes.
func texts(t *testing.T, svg []byte) (all []string) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		switch token := token.(type) {
		case xml.StartElement:
			assert.Contains(t, []string{"svg", "title", "style", "text", "rect", "g", "path", "circle"}, token.Name.Local)
		case xml.CharData:
			all = append(all, string(token))
		}
	}
}

func TestHostileNames(t *testing.T) {
	for _, name := range []string{
		"<script>alert(1)</script>", `"' onload="x`, "a\x00b\x1b[31m", "\xff\xfe", "two\nlines", "]]>", "&amp;", "</style>", "", "\u202egnp.exe", "\ufffe", strings.Repeat("x", 1<<16), strings.Repeat("界", 500),
	} {
		bars := Bars{Title: name, Unit: name, Order: []string{name}, Rows: []Row{{name, name, []Part{{name, 1}}}}}
		lines := Lines{Title: name, X: name, Y: name, Series: []Series{{name, []Point{{1, 1}}}}}
		for _, svg := range [][]byte{bars.SVG(), lines.SVG()} {
			assert.True(t, utf8.Valid(svg))
			for _, text := range texts(t, svg) {
				assert.NotContains(t, text, "\x1b")
				assert.NotContains(t, text, "\u202e")
				assert.NotContains(t, strings.TrimSuffix(text, "\n"), "\n")
			}
		}
	}
}

func TestNamesAreCut(t *testing.T) {
	name := "registry.example.com/" + strings.Repeat("path/", 20) + "image:tag"
	all := texts(t, (&Bars{Rows: []Row{{Label: name, Parts: []Part{{"fetch", 1}}}}}).SVG())
	assert.Contains(t, all, name, "the tooltip")
	var cut bool
	for _, text := range all {
		head, tail, found := strings.Cut(text, "…")
		cut = cut || found && strings.HasPrefix(name, head) && strings.HasSuffix(name, tail) && strings.HasSuffix(tail, "image:tag")
	}
	assert.True(t, cut, "the label")
	shown, was := truncate("short", 100, fontSize)
	assert.Equal(t, "short", shown)
	assert.False(t, was)
}

func TestBarsOfNumbersThatAreNone(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 1e16, math.MaxFloat64} {
		svg := string((&Bars{Unit: "s", Rows: []Row{{"way", "a note", []Part{{"fetch", v}, {"hash", 2}}}}}).SVG())
		assert.Contains(t, svg, ">unknown, a note<", v)
		assert.Contains(t, svg, ">hash: 2 s<", v)
		assert.NotContains(t, svg, ">fetch", v)
		noNaN(t, svg)
	}
	svg := string((&Bars{Unit: "s", Rows: []Row{{"zero", "", []Part{{"fetch", 0}}}, {"none", "no such way", nil}}}).SVG())
	assert.Contains(t, svg, ">0 s<")
	assert.Contains(t, svg, ">no such way<")
	noNaN(t, svg)
	noNaN(t, string((&Bars{}).SVG()))
}

func noNaN(t *testing.T, svg string) {
	t.Helper()
	assert.NotContains(t, svg, "NaN")
	assert.NotContains(t, svg, "Inf")
	assert.NotContains(t, svg, `width="-`)
}

func TestLinesOfNumbersThatAreNone(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e16, -1e16} {
		svg := string((&Lines{Series: []Series{{"gap", []Point{{1, 1}, {2, v}, {3, 3}, {v, 4}}}}}).SVG())
		assert.Equal(t, 2, strings.Count(svg, "<circle"), v)
		noNaN(t, svg)
	}
	for _, points := range [][]Point{nil, {{0, 0}}, {{5, -5}, {5, -5}}, {{1e15, 1e15}, {-1e15, -1e15}}, {{5e-324, 5e-324}}, {{1, 1e-300}, {2, 1e15}}, {{math.NaN(), 1}}} {
		noNaN(t, string((&Lines{Series: []Series{{"name", points}}}).SVG()))
	}
	noNaN(t, string((&Lines{}).SVG()))
}

// The same name has the same colour in charts with the same order, whatever else they have.
func TestColoursAreStable(t *testing.T) {
	short := Bars{Order: phases, Rows: []Row{{"a", "", []Part{{"engine", 1}}}}}
	assert.Equal(t, ways().colours()["engine"], short.colours()["engine"])
	assert.NotContains(t, string(short.SVG()), ">resolve<", "the legend has what is there")
	without := Bars{Rows: []Row{{"a", "", []Part{{"x", 1}, {"y", 1}}}, {"b", "", []Part{{"y", 1}, {"z", 1}}}}}
	assert.Equal(t, map[string]int{"x": 0, "y": 1, "z": 2}, without.colours())
}

func TestAxis(t *testing.T) {
	for _, c := range []struct {
		values []float64
		log    bool
		ticks  []float64
	}{
		{nil, false, []float64{0, 0.2, 0.4, 0.6, 0.8, 1}},
		{[]float64{3, 7}, false, []float64{0, 2, 4, 6, 8}},
		{[]float64{-4, 12}, false, []float64{-5, 0, 5, 10, 15}},
		{[]float64{1, 999}, false, []float64{0, 200, 400, 600, 800, 1000}},
		{[]float64{1, 1000}, true, []float64{1, 10, 100, 1000}},
		{[]float64{0, 1000}, false, []float64{0, 200, 400, 600, 800, 1000}},
		{[]float64{0.02, 870}, true, []float64{0.01, 0.1, 1, 10, 100, 1000}},
	} {
		a := newAxis(c.values, 0, 100)
		assert.Equal(t, c.log, a.log, c.values)
		assert.InDeltaSlice(t, c.ticks, a.ticks, 1e-9, c.values)
		for _, v := range c.values {
			assert.True(t, a.at(v) > -1e-6 && a.at(v) < 100+1e-6, "%v is at %v", v, a.at(v))
		}
	}
}

func TestSpread(t *testing.T) {
	spaced := spread([]label{{wanted: 99}, {wanted: 100}, {wanted: 10}}, 0, 100)
	assert.Equal(t, []float64{10, 85, 100}, []float64{spaced[0].at, spaced[1].at, spaced[2].at})
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1: "1", 0.2: "0.2", 12.34: "12.3", 99.96: "100", 1234.4: "1234", 999_600: "1M", 1_230_000: "1.23M", 5e9: "5G", 1e15: "1000T", 0.00123: "0.00123", -4: "-4", -1e-12: "0", 1e-12: "0", 9.996: "10", 1500000000000: "1.5T",
	} {
		assert.Equal(t, want, number(v), v)
	}
}
