package workflow

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"

	"github.com/dockercache/dockercache/internal/redact"
)

// A SummaryRow is one image in a summary.
type SummaryRow struct {
	// Image is the reference. Outcome is "stocked", "unchanged" or "failed";
	// another is shown without an icon.
	Image, Outcome string
	// Source is where the image came from, "" for none.
	Source string
	// Size is that of the tarball, Downloaded, Reused and Resumed are parts of it,
	// in bytes: Resumed is what an earlier attempt had left.
	Size, Downloaded, Reused, Resumed int64
	// Start is when work on the image began, zero if it did not. Duration is how
	// long it took.
	Start    time.Time
	Duration time.Duration
	// Error is why it failed, "" if it did not. Advice is what can be done about it, ""
	// for nothing.
	Error, Advice string
	// Phases is what the work on the image consisted of, in order, each once at most; it is
	// shown in a table of its own, and in the chart.
	Phases []SummaryPhase
	// Sources is what each source of the image gave; it is shown in a table of its own.
	Sources []SummarySource
}

// A SummaryPhase is a part of the work on an image, and how long it took.
type SummaryPhase struct {
	Name     string
	Duration time.Duration
}

// A SummarySource is what one source of an image gave.
type SummarySource struct {
	Name string
	// Bytes is how many came, Duplicate how many of them had come from elsewhere before, Rate
	// how many came in a second.
	Bytes, Duplicate, Rate int64
	// Requests is how many were made, Refused how many of them were refused, so that
	// others would be made later.
	Requests, Refused int
	// FirstByte is how long the first byte took, in the median.
	FirstByte time.Duration
	// Connections is how many there were at the same time in the mean, MostConnections at
	// most.
	Connections     float64
	MostConnections int
}

// MaxSummary is the limit on the size of a step's summary, in bytes. The runner
// shows nothing of a larger one.
// https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions#step-isolation-and-limits
const MaxSummary = 1 << 20

// maxCell is how much of a text is shown in a cell of a table, in bytes.
const maxCell = 500

// AppendSummary appends the [Summary] of rows and notes to a file, such as
// $GITHUB_STEP_SUMMARY, which is created if it does not exist. The whole file is
// then at most [MaxSummary] bytes long, unless it was longer before.
func AppendSummary(path string, rows []SummaryRow, notes []string) error {
	room := int64(MaxSummary - 1) // appendTo may add a line's end
	switch info, err := os.Stat(path); {
	case err == nil:
		room -= info.Size()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return appendTo(path, []byte(Summary(rows, notes, int(max(room, 0)))))
}

// Summary describes images in Markdown, in at most limit bytes: a heading with how many
// there are of each outcome, a table, what failed with its advice, the notes, where the time
// went, and a Mermaid chart of when each was worked on. Rows that do not fit are left out and
// counted; if nothing fits, the result is empty. Names, errors and notes may be text that
// is not trusted: no markup in them takes effect.
func Summary(rows []SummaryRow, notes []string, limit int) string {
	head := heading(rows) + "\n\n| image | outcome | source | size | downloaded | reused | kept | seconds | rate |\n" +
		"|---|---|---|--:|--:|--:|--:|--:|--:|\n"
	chart := gantt(rows)
	left := func(n int) string { return fmt.Sprintf("\n%d of %d images are left out here.\n", n, len(rows)) }
	room := limit - len(head) - len(left(len(rows))) - len("\n\n") - len(chart)
	if room < 0 {
		chart, room = "", room+len(chart)
	}
	if room < 0 {
		return ""
	}
	var table, failures strings.Builder
	shown := 0
	for _, r := range rows {
		line, failure := r.cells(), ""
		if r.Error != "" {
			failure = "- " + escapeMarkdown(r.Image) + ": " + escapeMarkdown(r.Error) + "\n"
			if r.Advice != "" {
				failure += "  - What to do: " + escapeMarkdown(r.Advice) + "\n"
			}
		}
		if room -= len(line) + len(failure); room < 0 {
			break
		}
		table.WriteString(line)
		failures.WriteString(failure)
		shown++
	}
	text := head + table.String()
	if shown < len(rows) {
		text += left(len(rows) - shown)
	}
	if failures.Len() > 0 {
		text += "\n" + failures.String()
	}
	for i, n := range notes {
		line := "- " + escapeMarkdown(n) + "\n"
		if i == 0 {
			line = "\n" + line
		}
		if room -= len(line); room >= 0 {
			text += line
		}
	}
	times := phases(rows[:shown], room)
	text += times + sources(rows[:shown], room-len(times))
	if chart != "" {
		text += "\n" + chart
	}
	return text
}

// heading is how many rows there are of each outcome, in their order.
func heading(rows []SummaryRow) string {
	var outcomes []string
	count := map[string]int{}
	for _, r := range rows {
		if count[r.Outcome]++; count[r.Outcome] == 1 {
			outcomes = append(outcomes, r.Outcome)
		}
	}
	text := "### Container images: "
	for i, o := range outcomes {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%d %s", count[o], escapeMarkdown(o))
	}
	return text
}

// cells is a row of the table.
func (r *SummaryRow) cells() string {
	rate := ""
	if seconds := r.Duration.Seconds(); seconds > 0 && r.Downloaded > 0 {
		rate = bytesText(int64(float64(r.Downloaded)/seconds)) + "/s"
	}
	icon := map[string]string{"stocked": "✅ ", "unchanged": "➖ ", "failed": "❌ "}[r.Outcome]
	return fmt.Sprintf("| %s | %s%s | %s | %s | %s | %s | %s | %.1f | %s |\n",
		escapeMarkdown(r.Image), icon, escapeMarkdown(r.Outcome), escapeMarkdown(cmp.Or(r.Source, "–")),
		bytesText(r.Size), bytesText(r.Downloaded), bytesText(r.Reused), bytesText(r.Resumed), r.Duration.Seconds(), rate)
}

// phases is a table of where the time went, as far as there is room; "" if nothing is known.
func phases(rows []SummaryRow, room int) string {
	var names []string
	for _, r := range rows {
		for _, p := range r.Phases {
			if !slices.Contains(names, p.Name) {
				names = append(names, p.Name)
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	text, line := "\n#### Where the time went\n\n| image | seconds |", "\n|---|--:|"
	for _, n := range names {
		text += " " + escapeMarkdown(n) + " |"
		line += "--:|"
	}
	text += line + "\n"
	head := len(text)
	for _, r := range rows {
		if len(r.Phases) == 0 {
			continue
		}
		line := fmt.Sprintf("| %s | %.1f |", escapeMarkdown(r.Image), r.Duration.Seconds())
		for _, n := range names {
			line += " "
			if i := slices.IndexFunc(r.Phases, func(p SummaryPhase) bool { return p.Name == n }); i >= 0 {
				line += fmt.Sprintf("%.1f ", r.Phases[i].Duration.Seconds())
			}
			line += "|"
		}
		if line += "\n"; len(text)+len(line) > room {
			break
		}
		text += line
	}
	if len(text) == head || len(text) > room {
		return ""
	}
	return text
}

// sources is a table of what sources gave, as far as there is room; "" if there are none.
func sources(rows []SummaryRow, room int) string {
	text := "\n| image | read from | bytes | rate | first byte | requests | refused | twice | connections |\n" +
		"|---|---|--:|--:|--:|--:|--:|--:|--:|\n"
	head := len(text)
	for _, r := range rows {
		for _, s := range r.Sources {
			line := fmt.Sprintf("| %s | %s | %s | %s/s | %.2f s | %d | %d | %s | %.1f, at most %d |\n",
				escapeMarkdown(r.Image), escapeMarkdown(cmp.Or(s.Name, "–")), bytesText(s.Bytes), bytesText(s.Rate), s.FirstByte.Seconds(),
				s.Requests, s.Refused, bytesText(s.Duplicate), s.Connections, s.MostConnections)
			if len(text)+len(line) > room {
				break
			}
			text += line
		}
	}
	if len(text) == head {
		return ""
	}
	return text
}

func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// escapeMarkdown makes a text that Markdown shows as it is, also in a cell of a
// table: every ASCII character that could be markup is written as its number.
func escapeMarkdown(s string) string {
	s = redact.Text(s)
	if len(s) > maxCell {
		s = strings.ToValidUTF8(s[:maxCell], "") + "…"
	}
	var b strings.Builder
	for _, r := range s {
		if r < 0x80 && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(" .,/-", r) {
			fmt.Fprintf(&b, "&#%d;", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

const (
	// maxBars is how many bars a chart has at most: more would be illegible.
	maxBars = 60
	// maxBarName is how long a name in it may be, in bytes.
	maxBarName = 60
)

// gantt draws when each image was worked on, in seconds since the first began, with a bar for
// each phase that is known; "" if there is nothing to draw. Mermaid colours failed images red
// (crit), stocked ones blue (active) and unchanged ones grey (done).
// https://mermaid.js.org/syntax/gantt.html
func gantt(rows []SummaryRow) string {
	var first time.Time
	for _, r := range rows {
		if !r.Start.IsZero() && (first.IsZero() || r.Start.Before(first)) {
			first = r.Start
		}
	}
	if first.IsZero() {
		return ""
	}
	var b strings.Builder
	b.WriteString("```mermaid\ngantt\n    title Time since the first image was begun\n" +
		"    dateFormat YYYY-MM-DD HH:mm:ss\n    axisFormat %H:%M:%S\n")
	sections := slices.ContainsFunc(rows, func(r SummaryRow) bool { return len(r.Phases) > 0 })
	bars := 0
	for i, r := range rows {
		if r.Start.IsZero() {
			continue
		}
		lines := r.bars(i+1, r.Start.Sub(first), sections)
		if bars += len(lines); bars > maxBars {
			break
		}
		for _, l := range lines {
			b.WriteString("    " + l + "\n")
		}
	}
	b.WriteString("```\n")
	return b.String()
}

// bars are the lines of a chart for a row, which began so long after the first: a bar, or, in a
// section if the chart has some, one for each phase that took at least a second. Phases may
// alternate; each is drawn once, after those that began before it.
func (r *SummaryRow) bars(number int, began time.Duration, sections bool) (lines []string) {
	state := map[string]string{"failed": "crit, ", "stocked": "active, ", "unchanged": "done, "}[r.Outcome]
	bar := func(name string, at, length time.Duration) string {
		// Mermaid reads and shows times in the reader's time zone, so any date will
		// do to count from 0:00:00.
		start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(at)
		end := start.Add(max(length, time.Second)) // Mermaid does not draw a bar of length 0
		const layout = "2006-01-02 15:04:05"
		return fmt.Sprintf("%s :%s%s, %s", name, state, start.Format(layout), end.Format(layout))
	}
	name := fmt.Sprintf("%d %s", number, barName(r.Image))
	at := began
	for i, p := range r.Phases {
		if p.Duration >= time.Second {
			lines = append(lines, bar(fmt.Sprintf("%d.%d %s", number, i+1, barName(p.Name)), at, p.Duration))
		}
		at += p.Duration
	}
	if len(lines) == 0 {
		lines = []string{bar(name, began, r.Duration)}
	}
	if !sections {
		return lines
	}
	return append([]string{"section " + name}, lines...)
}

// barName is the last part of a reference, without anything that Mermaid reads as
// syntax. The number before it keeps it from being a keyword, such as
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
