package tagging

import (
	"errors"
	"fmt"
	"strings"
)

// ErrElement is wrapped by the errors of [CheckElement].
var ErrElement = errors.New("not safe as one element of a path")

// maxElement is the longest name of a file, in bytes, on Linux and on every
// file system that a cache directory is likely to be on (NAME_MAX).
const maxElement = 255

// CheckElement reports why name is not safe as one element of a path. Every
// name that this package returns passes it. It refuses a name that is empty, has
// more than 255 bytes, begins with a dot (hidden) or a dash (an option to
// commands), or contains "..", a slash, a backslash or a control character.
// The error wraps [ErrElement].
func CheckElement(name string) error {
	if err := checkElement(name); err != nil {
		return fmt.Errorf("%w: the name %q %w", ErrElement, name, err)
	}
	return nil
}

// checkElement is [CheckElement] with the reason only, as the end of a sentence.
func checkElement(name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case strings.ContainsAny(name, `/\`):
		return errors.New("contains a path separator")
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("contains a control character")
	case strings.Contains(name, ".."):
		return errors.New(`contains ".."`)
	case name[0] == '.' || name[0] == '-':
		return fmt.Errorf("begins with %q", name[:1])
	case len(name) > maxElement:
		return fmt.Errorf("has %d bytes, more than the %d that a file name may have", len(name), maxElement)
	}
	return nil
}
