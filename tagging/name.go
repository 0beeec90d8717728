package tagging

import (
	"fmt"
	"strings"
)

// Name returns the name that an image keeps across rebuilds: its tag without
// the last "-" part. A tag without a "-" is the name as it is.
//
// The registry may have a port and the reference may have a digest beside its
// tag; neither enters the name. The error wraps [ErrReference]: an empty or
// malformed reference, one without a tag, or a tag that leaves nothing or a
// ".." in the name.
func Name(image string) (string, error) {
	ref, err := parse(image)
	if err != nil {
		return "", err
	}
	name := ref.tag
	if i := strings.LastIndexByte(name, '-'); i >= 0 {
		name = name[:i]
	}
	if err := checkElement(name); err != nil {
		return "", fmt.Errorf("%w %q: its tag %q without the last \"-\" part gives the name %q, which %w", ErrReference, image, ref.tag, name, err)
	}
	return name, nil
}

// maxElement is the longest name of a file, in bytes, on Linux and on every
// file system that a cache directory is likely to be on (NAME_MAX).
const maxElement = 255

// checkElement tells whether name can be an element of a path and nothing else.
func checkElement(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("is empty")
	case strings.ContainsAny(name, "/\\\x00"):
		return fmt.Errorf("contains a path separator")
	case strings.Contains(name, ".."):
		return fmt.Errorf("contains \"..\"")
	case name[0] == '.' || name[0] == '-':
		return fmt.Errorf("begins with %q", name[:1])
	case len(name) > maxElement:
		return fmt.Errorf("has %d bytes, more than the %d that a file name may have", len(name), maxElement)
	}
	return nil
}
