package workflow

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
)

// ErrOutput is wrapped by the errors for an [Output] that cannot be written.
var ErrOutput = errors.New("unusable output")

// An Output is an output of a step.
type Output struct {
	// Name is 1 to 128 ASCII letters, digits, "_", "-" and ".", not beginning
	// with "-" or ".".
	Name string
	// Value is any text.
	Value string
}

var names = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`) })

// IsOutputName reports whether name has the form of an [Output]'s.
func IsOutputName(name string) bool { return names().MatchString(name) }

// WriteOutputs writes outputs in the format of the file $GITHUB_OUTPUT. Each is a
// block that ends with a random line, so that no value can end its own block and
// begin another output:
//
//	NAME<<DELIMITER
//	VALUE
//	DELIMITER
//
// For a name of another form, or two outputs of the same name, the error wraps
// [ErrOutput], and nothing is written. Case does not count: of two names that differ
// by it the runner keeps one (actions/runner, DictionaryContextData.cs).
// https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions#multiline-strings
func WriteOutputs(w io.Writer, outputs []Output) error {
	block, err := formatOutputs(outputs)
	if err != nil {
		return err
	}
	_, err = w.Write(block)
	return err
}

// AppendOutputs is [WriteOutputs] to the end of a file, such as $GITHUB_OUTPUT.
// The file is created if it does not exist. If its last line has no end, it gets
// one first: otherwise the first output would become a part of it.
func AppendOutputs(path string, outputs []Output) error {
	block, err := formatOutputs(outputs)
	if err != nil {
		return err
	}
	return appendTo(path, block)
}

func formatOutputs(outputs []Output) ([]byte, error) {
	var b bytes.Buffer
	seen := map[string]string{}
	for _, o := range outputs {
		delimiter := "dockercache_" + rand.Text()
		switch {
		case !IsOutputName(o.Name):
			return nil, fmt.Errorf("%w: %.200q cannot be its name", ErrOutput, o.Name)
		case seen[strings.ToLower(o.Name)] == o.Name:
			return nil, fmt.Errorf("%w: there are two of the name %q", ErrOutput, o.Name)
		case seen[strings.ToLower(o.Name)] != "":
			return nil, fmt.Errorf("%w: %q and %q are one output, since case does not count", ErrOutput, seen[strings.ToLower(o.Name)], o.Name)
		case strings.Contains(o.Value, delimiter):
			return nil, fmt.Errorf("%w: the value of %q contains the random delimiter", ErrOutput, o.Name)
		}
		seen[strings.ToLower(o.Name)] = o.Name
		fmt.Fprintf(&b, "%s<<%s\n%s\n%s\n", o.Name, delimiter, o.Value, delimiter)
	}
	return b.Bytes(), nil
}

// appendTo appends to a text file, beginning on a new line, by one write: other
// processes of the step may append to it too.
func appendTo(path string, text []byte) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, info.Size()-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			text = append([]byte{'\n'}, text...)
		}
	}
	_, err = f.Write(text)
	return err
}
