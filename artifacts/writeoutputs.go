package artifacts

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"strings"
)

// WriteOutputs writes outputs in the format of the file $GITHUB_OUTPUT. Each is
// written as a block that ends with a random line, so that no value can end its
// own block and begin another output:
//
//	NAME<<DELIMITER
//	REFERENCE
//	DELIMITER
//
// A name of another form than [ReadOutputs] takes, or one that is there twice,
// is an error of kind [ErrOutputs], and nothing is written.
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
// It is created if it is missing. If its last line has no end it gets one first:
// else the first output would become a part of it.
func AppendOutputs(path string, outputs []Output) error {
	block, err := formatOutputs(outputs)
	if err != nil {
		return err
	}
	return appendTo(path, block)
}

func formatOutputs(outputs []Output) ([]byte, error) {
	var b bytes.Buffer
	seen := map[string]bool{}
	for _, o := range outputs {
		delimiter := "dockercache_" + rand.Text()
		switch {
		case !outputNames().MatchString(o.Name):
			return nil, badOutput(o.File, "the name %.200q cannot be an output's", o.Name)
		case seen[o.Name]:
			return nil, badOutput(o.File, "the name %q is there twice", o.Name)
		case strings.Contains(o.Reference, delimiter):
			return nil, badOutput(o.File, "the reference of %q has the random delimiter in it", o.Name)
		}
		seen[o.Name] = true
		fmt.Fprintf(&b, "%s<<%s\n%s\n%s\n", o.Name, delimiter, o.Reference, delimiter)
	}
	return b.Bytes(), nil
}

// appendTo appends to a text file, beginning on a new line, in one write: the
// runner reads such a file when the step has ended, other processes of the step
// may write to it too.
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
