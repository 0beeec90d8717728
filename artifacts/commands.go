package artifacts

import (
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Commands writes commands to the runner of a job, which reads them from the
// job's output.
// https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
//
// Everything that is passed to it may be text that is not trusted: it ends no
// command and begins none. Errors are those of the writer.
type Commands struct{ w io.Writer }

// NewCommands returns commands that are written to w, each at once. Every write
// begins on a new line if all others end with one.
func NewCommands(w io.Writer) *Commands { return &Commands{w} }

// A Place is what a message is about, and its title. Empty fields are left out.
type Place struct {
	Title string
	File  string
	Line  int // from 1
}

// Group begins a group of lines that can be folded; groups are not nested.
func (c *Commands) Group(title string) error { return c.write("group", Place{}, title) }

// EndGroup ends it.
func (c *Commands) EndGroup() error { return c.write("endgroup", Place{}, "") }

// Notice annotates the run with a message.
func (c *Commands) Notice(at Place, message string) error { return c.write("notice", at, message) }

// Warning is [Commands.Notice] at the next level.
func (c *Commands) Warning(at Place, message string) error { return c.write("warning", at, message) }

// Error is [Commands.Notice] at the highest level. It does not fail the step: an
// exit code does.
func (c *Commands) Error(at Place, message string) error { return c.write("error", at, message) }

// accountID is the form of an AWS account's number.
var accountID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\s*\d{12}\s*$`) })

// Mask makes the runner print *** for a secret from now on, and for each line of
// it. It tells whether it did: it leaves out what is blank, and a value of which
// a line is an AWS account ID. The runner drops every output with a masked value
// in it, and the ID is in each reference of ECR
// (https://github.com/aws-actions/amazon-ecr-login/issues/546).
func (c *Commands) Mask(secret string) (bool, error) {
	if strings.TrimSpace(secret) == "" {
		return false, nil
	}
	for line := range strings.SplitSeq(strings.ReplaceAll(secret, "\r", "\n"), "\n") {
		if accountID().MatchString(line) {
			return false, nil
		}
	}
	// As it is: what Plain makes of it would not be the secret.
	_, err := fmt.Fprintf(c.w, "::add-mask::%s\n", escapeData(secret))
	return err == nil, err
}

func (c *Commands) write(name string, at Place, data string) error {
	var properties []string
	for _, p := range [][2]string{{"title", at.Title}, {"file", at.File}, {"line", line(at.Line)}} {
		if p[1] != "" {
			properties = append(properties, p[0]+"="+escapeProperty(plainLine(p[1])))
		}
	}
	head := strings.TrimSpace(name + " " + strings.Join(properties, ","))
	// One write, so that nothing gets in between.
	_, err := io.WriteString(c.w, "::"+head+"::"+escapeData(Plain(data))+"\n")
	return err
}

func line(n int) string {
	if n <= 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// escapeData and escapeProperty are what the runner undoes.
func escapeData(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func escapeProperty(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace(s)
}
