package artifacts

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
)

// A Row is one image in a summary.
type Row struct {
	// Image is the reference, Outcome what became of it: "stocked",
	// "unchanged" or "failed"; any other is shown as it is.
	Image, Outcome string
	// Source is where it came from, "" if from nowhere.
	Source string
	// Size is that of the tarball, Downloaded and Reused are parts of it, in
	// bytes.
	Size, Downloaded, Reused int64
	// Start is when work on the image began, Duration how long it took.
	Start    time.Time
	Duration time.Duration
	// Error says why it failed, "" if it did not.
	Error string
}

// MaxSummary is how large the summary of a step may be, in bytes. The runner
// shows nothing of a larger one.
const MaxSummary = 1 << 20

// maxCell is how much of a text is shown in a cell of a table, in bytes.
const maxCell = 500

// AppendSummary appends the [Summary] of rows to a file, such as
// $GITHUB_STEP_SUMMARY, which is created if it is missing. Together with what the
// file has already it is no larger than [MaxSummary].
func AppendSummary(path string, rows []Row) error {
	room := int64(MaxSummary - 1) // appendTo may add a line's end
	switch info, err := os.Stat(path); {
	case err == nil:
		room -= info.Size()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return appendTo(path, []byte(Summary(rows, int(max(room, 0)))))
}

// Summary describes images in Markdown, in at most limit bytes: a table, and a
// Mermaid chart of when each was worked on. Rows that do not fit are left out and
// counted; if nothing fits it is empty. Names and errors are shown as text,
// whatever is in them.
func Summary(rows []Row, limit int) string {
	const head = "| image | outcome | source | size | downloaded | reused | seconds | rate |\n" +
		"|---|---|---|--:|--:|--:|--:|--:|\n"
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
	if chart != "" {
		text += "\n" + chart
	}
	return text
}

// cells is a row of the table.
func (r *Row) cells() string {
	rate := ""
	if seconds := r.Duration.Seconds(); seconds > 0 && r.Downloaded > 0 {
		rate = bytesText(int64(float64(r.Downloaded)/seconds)) + "/s"
	}
	icon := map[string]string{"stocked": "✅ ", "unchanged": "➖ ", "failed": "❌ "}[r.Outcome]
	return fmt.Sprintf("| %s | %s%s | %s | %s | %s | %s | %.1f | %s |\n",
		escapeMarkdown(r.Image), icon, escapeMarkdown(r.Outcome), escapeMarkdown(cmp.Or(r.Source, "–")),
		bytesText(r.Size), bytesText(r.Downloaded), bytesText(r.Reused), r.Duration.Seconds(), rate)
}

func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// escapeMarkdown makes a text that Markdown shows as it is, in a cell of a table
// too: every character of ASCII that could mean something is written as its
// number.
func escapeMarkdown(s string) string {
	s = clean(s)
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
