package artifactstest

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// An Output is one that the runner reads.
type Output struct{ Name, Value string }

// ParseOutputFile reads $GITHUB_OUTPUT as the runner on Linux does
// (actions/runner, FileCommandManager.cs). It returns the outputs in order, also
// several of the same name; the runner takes the last.
func ParseOutputFile(content string) ([]Output, error) {
	var outputs []Output
	for content != "" {
		var line string
		line, content, _ = strings.Cut(content, "\n")
		if line == "" {
			continue
		}
		equals, block := strings.Index(line, "="), strings.Index(line, "<<")
		switch {
		case equals >= 0 && (block < 0 || equals < block):
			outputs = append(outputs, Output{line[:equals], line[equals+1:]})
		case block >= 0:
			name, delimiter := line[:block], line[block+2:]
			if name == "" || delimiter == "" {
				return nil, fmt.Errorf("invalid format %q", line)
			}
			var value []string
			for {
				var found bool
				line, content, found = strings.Cut(content, "\n")
				if line == delimiter {
					break
				}
				if !found {
					return nil, errors.New("matching delimiter not found " + delimiter)
				}
				value = append(value, line)
			}
			outputs = append(outputs, Output{name, strings.Join(value, "\n")})
		default:
			return nil, fmt.Errorf("invalid format %q", line)
		}
	}
	return outputs, nil
}

// A Command is one that the runner finds in a line of output.
type Command struct {
	Name       string
	Properties map[string]string
	Data       string
}

// commandNames are those that a runner knows.
var commandNames = []string{
	"add-mask", "add-matcher", "add-path", "debug", "echo", "endgroup", "error", "group", "internal-set-repo-path",
	"notice", "remove-matcher", "save-state", "set-env", "set-output", "stop-commands", "warning",
}

// ParseCommand finds the command in a line that a step prints, if there is one,
// as the runner does (actions/runner, ActionCommand.cs). The runner compares by
// culture, which may ignore invisible characters, so they are removed here.
func ParseCommand(line string) (Command, bool) {
	line = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return r
		}
		if !unicode.IsGraphic(r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) || unicode.Is(unicode.Variation_Selector, r) {
			return -1
		}
		return r
	}, line)
	start := strings.TrimLeftFunc(line, unicode.IsSpace)
	if rest, ok := strings.CutPrefix(start, "::"); ok {
		if info, data, ok := strings.Cut(rest, "::"); ok {
			if c, ok := newCommand(info, ",", unescape("%0D", "\r", "%0A", "\n", "%3A", ":", "%2C", ",", "%25", "%")); ok {
				c.Data = unescape("%0D", "\r", "%0A", "\n", "%25", "%")(data)
				return c, true
			}
		}
	}
	if _, rest, ok := strings.Cut(line, "##["); ok {
		if info, data, ok := strings.Cut(rest, "]"); ok {
			old := unescape("%3B", ";", "%0D", "\r", "%0A", "\n", "%5D", "]", "%25", "%")
			if c, ok := newCommand(info, ";", old); ok {
				c.Data = old(data)
				return c, true
			}
		}
	}
	return Command{}, false
}

func newCommand(info, separator string, unescape func(string) string) (Command, bool) {
	name, properties, _ := strings.Cut(info, " ")
	c := Command{Name: strings.ToLower(name), Properties: map[string]string{}}
	known := false
	for _, n := range commandNames {
		known = known || n == c.Name
	}
	for p := range strings.SplitSeq(strings.TrimSpace(properties), separator) {
		if key, value, ok := strings.Cut(p, "="); ok && key != "" && value != "" {
			c.Properties[key] = unescape(value)
		}
	}
	return c, known
}

// unescape replaces one pair after the other, as the runner does.
func unescape(pairs ...string) func(string) string {
	return func(s string) string {
		for i := 0; i < len(pairs); i += 2 {
			s = strings.ReplaceAll(s, pairs[i], pairs[i+1])
		}
		return s
	}
}
