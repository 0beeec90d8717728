package artifacts

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dockercache/dockercache/artifacts/workflow"
	"github.com/dockercache/dockercache/internal/redact"
)

// ErrOutputs is wrapped by every error about the content of output files.
var ErrOutputs = errors.New("unusable build outputs")

// An Output is one image that a build named.
type Output struct {
	// Name is the build's name for the image, such as
	// pytorch-linux-jammy-rocm-n-py3.
	Name string
	// Reference is the text after the "=". It has no space and no control
	// character; [Policy.CheckReference] checks that it is a reference.
	Reference string
	// File and Line (from 1) are where it was read.
	File string
	Line int
}

const (
	// maxOutputFile is the limit on an output file, in bytes. A build writes one
	// line of some 150 bytes.
	maxOutputFile = 1 << 20
	// maxOutputs is the limit on the number of outputs.
	maxOutputs = 1000
)

// An outputError is an [ErrOutputs] with its file, so that the artifact can be
// named.
type outputError struct{ file, text string }

func (e *outputError) Error() string { return redact.Text(ErrOutputs.Error() + ": " + e.text) }
func (e *outputError) Unwrap() error { return ErrOutputs }

func badOutput(file, format string, args ...any) error {
	return &outputError{file, fmt.Sprintf(format, args...)}
}

// ReadOutputs reads the NAME=REFERENCE lines of all files in the top level of
// fsys whose names end in ".txt", in the order of the files' names.
//
// Blank lines, CRLF and a missing last newline are allowed. A name that occurs
// again keeps its place and takes the later reference; the earlier one is in
// overridden, so that the caller can warn. Everything else is an error that
// wraps [ErrOutputs] and names file and line: a line of another form, an empty
// reference (as a failed build writes it), two names that differ by case only, a file
// that is not text, has more than 1 MiB or is not regular, more than 1000 outputs, and
// none at all.
func ReadOutputs(fsys fs.FS) (outputs, overridden []Output, err error) {
	if fsys == nil {
		return nil, nil, fmt.Errorf("%w: there are no files", ErrOutputs)
	}
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if path.Ext(e.Name()) != ".txt" {
			continue
		}
		read, err := readOutputFile(fsys, e)
		if err != nil {
			return nil, nil, err
		}
		for _, o := range read {
			i := slices.IndexFunc(outputs, func(have Output) bool { return strings.EqualFold(have.Name, o.Name) })
			if i >= 0 && outputs[i].Name != o.Name {
				return nil, nil, badOutput(e.Name(), "%s:%d: %q and %q of %s:%d %s", e.Name(), o.Line, o.Name, outputs[i].Name, outputs[i].File, outputs[i].Line, sameOutput)
			}
			if i >= 0 {
				overridden = append(overridden, outputs[i])
				outputs[i] = o
				continue
			}
			if outputs = append(outputs, o); len(outputs) > maxOutputs {
				return nil, nil, badOutput(e.Name(), "more than %d", maxOutputs)
			}
		}
	}
	if len(outputs) == 0 {
		return nil, nil, fmt.Errorf("%w: no *.txt file with a line NAME=REFERENCE", ErrOutputs)
	}
	return outputs, overridden, nil
}

func readOutputFile(fsys fs.FS, e fs.DirEntry) ([]Output, error) {
	info, err := e.Info()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, badOutput(e.Name(), "%q is not a regular file", e.Name())
	case info.Size() > maxOutputFile:
		return nil, badOutput(e.Name(), "%q has %d bytes, more than %d", e.Name(), info.Size(), maxOutputFile)
	}
	content, err := fs.ReadFile(fsys, e.Name())
	if err != nil {
		return nil, err
	}
	return parseOutputs(e.Name(), content)
}

func parseOutputs(file string, content []byte) ([]Output, error) {
	var outputs []Output
	lines := bufio.NewScanner(bytes.NewReader(content)) // drops a "\r" before "\n"
	lines.Buffer(nil, maxOutputFile+1)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if strings.TrimSpace(line) == "" {
			continue
		}
		name, ref, ok := strings.Cut(line, "=")
		fail := func(why string) error {
			return badOutput(file, "%s:%d: %.200q: %s", file, n, line, why)
		}
		switch {
		case !utf8.ValidString(line):
			return nil, fail("it is not UTF-8 text")
		case !ok:
			return nil, fail("want NAME=REFERENCE")
		case !workflow.IsOutputName(name):
			return nil, fail("the name may have letters, digits, \"_\", \"-\" and \".\", 128 at most")
		case ref == "":
			return nil, fail("the reference is empty: did the build fail?")
		case strings.ContainsFunc(ref, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
			return nil, fail("the reference has a space or control character")
		}
		outputs = append(outputs, Output{Name: name, Reference: ref, File: file, Line: n})
	}
	return outputs, lines.Err()
}

// sameOutput is why names that differ by case only are refused.
const sameOutput = "are one output where case does not count, as in GitHub Actions: rename one of them"

// checkOutputs checks what a parser returned: some outputs, each with a reference and a
// name of its own that can be that of a job's output.
func checkOutputs(outputs []Output) error {
	if len(outputs) == 0 {
		return fmt.Errorf("%w: there is none", ErrOutputs)
	}
	for i, o := range outputs {
		if j := slices.IndexFunc(outputs[:i], func(have Output) bool { return strings.EqualFold(have.Name, o.Name) }); j >= 0 {
			return fmt.Errorf("%w: %q and %q %s", ErrOutputs, outputs[j].Name, o.Name, sameOutput)
		}
		if !workflow.IsOutputName(o.Name) || o.Reference == "" {
			return fmt.Errorf("%w: %q=%q is no output: want a name of letters, digits, \"_\" and \"-\", and a reference", ErrOutputs, o.Name, o.Reference)
		}
	}
	return nil
}
