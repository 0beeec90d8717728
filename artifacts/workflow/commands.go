package workflow

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

// Commands writes commands to the runner of a job, which reads them from the
// job's output.
// https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
//
// All arguments may be text that is not trusted: it ends no command and begins
// none. Errors are those of the writer. Commands are as safe for concurrent use
// as the writer is. Nil and the zero value write nothing, as is right outside of
// GitHub Actions.
type Commands struct{ w io.Writer }

// NewCommands returns commands that are written to w, each by one Write. They
// begin on a new line if everything else that is written to w ends with one.
func NewCommands(w io.Writer) *Commands { return &Commands{w} }

// An Annotation is the title of a message and the place that it is about. Empty
// fields are left out.
type Annotation struct {
	Title string
	File  string
	Line  int // from 1
}

// Group begins a group of lines that can be folded. Groups do not nest.
func (c *Commands) Group(title string) error { return c.write("group", Annotation{}, title) }

// EndGroup ends the group.
func (c *Commands) EndGroup() error { return c.write("endgroup", Annotation{}, "") }

// Notice annotates the run with a message.
func (c *Commands) Notice(at Annotation, message string) error { return c.write("notice", at, message) }

// Warning is [Commands.Notice] one level higher.
func (c *Commands) Warning(at Annotation, message string) error {
	return c.write("warning", at, message)
}

// Error is [Commands.Notice] at the highest level. It does not fail the step:
// only an exit code does.
func (c *Commands) Error(at Annotation, message string) error { return c.write("error", at, message) }

// accountID is the form of an AWS account's ID.
var accountID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\s*\d{12}\s*$`) })

// Mask makes the runner print *** from now on for a secret and for each line of
// it, and reports whether it did. It does not mask a blank text, or one that has
// an AWS account ID as a line: the runner drops every output that contains a
// masked value, and the ID is in each reference of ECR
// (https://github.com/aws-actions/amazon-ecr-login/issues/546).
func (c *Commands) Mask(secret string) (bool, error) {
	if c == nil || c.w == nil || strings.TrimSpace(secret) == "" {
		return false, nil
	}
	for line := range strings.SplitSeq(strings.ReplaceAll(secret, "\r", "\n"), "\n") {
		if accountID().MatchString(line) {
			return false, nil
		}
	}
	// Unchanged: the text that Plain returns would not be the secret.
	_, err := fmt.Fprintf(c.w, "::add-mask::%s\n", escapeData(secret))
	return err == nil, err
}

func (c *Commands) write(name string, at Annotation, data string) error {
	if c == nil || c.w == nil {
		return nil
	}
	var properties []string
	for _, p := range [][2]string{{"title", at.Title}, {"file", at.File}, {"line", line(at.Line)}} {
		if p[1] != "" {
			properties = append(properties, p[0]+"="+escapeProperty(plainLine(p[1])))
		}
	}
	head := strings.TrimSpace(name + " " + strings.Join(properties, ","))
	// One Write, so that no other text gets in between.
	_, err := io.WriteString(c.w, "::"+head+"::"+escapeData(Plain(data))+"\n")
	return err
}

func line(n int) string {
	if n <= 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// The runner undoes escapeData and escapeProperty.
func escapeData(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func escapeProperty(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace(s)
}

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
