package artifacts

import (
	"regexp"
	"strings"
	"unicode"
)

// commandStart begins a command, ::name::. Any character outside of ASCII may be
// one that does not count, see legacyStart.
var commandStart = regexp.MustCompile(`^(\s|[^\x00-\x7f])*:[^\x00-\x7f]*:`)

// legacyStart begins a command of the older form, ##[name], anywhere in a line.
// Characters outside of ASCII may stand in between: the runner searches with the
// rules of a language, for which some characters are not there at all
// (actions/runner, ActionCommand.cs: IndexOf and StartsWith of strings).
var legacyStart = regexp.MustCompile(`#([^\x00-\x7f]*)\[`)

// Plain makes text that is not trusted safe to be printed in a job: no line of
// it is a command to the runner. Lines that could begin with "::", also after
// what does not show, get a "| " in front, "##[" becomes "## [", and characters
// that do not show become U+FFFD. Other text, line ends included, is left as it
// is; it must be printed at the beginning of a line.
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
	for legacyStart.MatchString(line) {
		line = legacyStart.ReplaceAllString(line, "#$1 [")
	}
	if commandStart.MatchString(line) {
		return "| " + line
	}
	return line
}
