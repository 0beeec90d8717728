package workflow

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"sync"
	"unicode"
)

// commandStart begins a command, ::name::. The runner may ignore any character
// outside of ASCII, see legacyStart.
var commandStart = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(\s|[^\x00-\x7f])*:[^\x00-\x7f]*:`) })

// legacyStart begins a command of the older form, ##[name], anywhere in a line.
// Characters outside of ASCII may stand in between: the runner compares by
// culture, which ignores some characters (actions/runner, ActionCommand.cs:
// IndexOf and StartsWith of strings).
var legacyStart = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`#([^\x00-\x7f]*)\[`) })

// Plain makes text that is not trusted safe to be printed in a job: no line of
// it is a command to the runner. Lines that could begin with "::", also after
// invisible characters, get a "| " in front, "##[" becomes "## [", characters that
// are not graphic become U+FFFD, and "\r\n" becomes "\n". Other text is returned
// as it is. It must be printed at the beginning of a line.
func Plain(text string) string {
	lines := strings.Split(strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\r\n", "\n"), "\n")
	for i, line := range lines {
		lines[i] = plainLine(line)
	}
	return strings.Join(lines, "\n")
}

func plainLine(line string) string {
	line = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) && r != '\t' {
			return '\uFFFD'
		}
		return r
	}, line)
	// Twice, because "##[[" has one left after the first time.
	for legacyStart().MatchString(line) {
		line = legacyStart().ReplaceAllString(line, "#$1 [")
	}
	if commandStart().MatchString(line) {
		return "| " + line
	}
	return line
}

// PlainWriter returns a writer that applies [Plain] to what is written and writes
// it to w, each time by one Write. Each Write must be of whole lines, as those of
// log/slog are. It is as safe for concurrent use as w is.
func PlainWriter(w io.Writer) io.Writer { return plainWriter{w} }

type plainWriter struct{ w io.Writer }

func (p plainWriter) Write(lines []byte) (int, error) {
	if _, err := io.WriteString(p.w, Plain(string(lines))); err != nil {
		return 0, err
	}
	return len(lines), nil
}

// PlainJSON does for a JSON value what [Plain] does for text, without changing
// what it means: in JSON only a string can hold a "#", and no line of it begins
// a command.
func PlainJSON(raw []byte) []byte { return bytes.ReplaceAll(raw, []byte("#"), []byte(`\u0023`)) }
