package artifacts

import (
	"fmt"
	"strings"
	"time"
)

const (
	// maxBars is how many images a chart has at most: more cannot be read.
	maxBars = 50
	// maxBarName is how long a name in it may be, in bytes.
	maxBarName = 60
)

// gantt draws when each image was worked on, in seconds since the first began;
// "" if there is nothing to draw. Mermaid colours what failed red (crit), what
// was stocked blue (active) and what was unchanged grey (done).
// https://mermaid.js.org/syntax/gantt.html
func gantt(rows []Row) string {
	var first time.Time
	for _, r := range rows {
		if !r.Start.IsZero() && (first.IsZero() || r.Start.Before(first)) {
			first = r.Start
		}
	}
	if first.IsZero() {
		return ""
	}
	// Times are read and shown in the reader's time zone, so any date does for
	// counting from 0:00:00.
	zero := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	var b strings.Builder
	b.WriteString("```mermaid\ngantt\n    title Time since the first image was begun\n" +
		"    dateFormat YYYY-MM-DD HH:mm:ss\n    axisFormat %H:%M:%S\n")
	bars := 0
	for i, r := range rows {
		if r.Start.IsZero() {
			continue
		}
		if bars++; bars > maxBars {
			break
		}
		state := map[string]string{"failed": "crit, ", "stocked": "active, ", "unchanged": "done, "}[r.Outcome]
		start := zero.Add(r.Start.Sub(first))
		// A bar of no length does not show.
		end := start.Add(max(r.Duration, time.Second))
		const layout = "2006-01-02 15:04:05"
		fmt.Fprintf(&b, "    %d %s :%s%s, %s\n", i+1, barName(r.Image), state, start.Format(layout), end.Format(layout))
	}
	b.WriteString("```\n")
	return b.String()
}

// barName is the last part of a reference, with nothing in it that Mermaid reads
// as syntax. The number before it keeps it from being a keyword, such as
// "section".
func barName(image string) string {
	image = image[strings.LastIndex(image, "/")+1:]
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(" -_.", r):
			return r
		case r == ':' || r == '@':
			return ' '
		}
		return '_'
	}, image)
	if len(name) > maxBarName {
		name = name[:maxBarName]
	}
	return name
}
