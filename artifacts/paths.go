package artifacts

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// checkPath refuses every path that could leave a directory, or that means
// something else on another system, in a terminal or in a shell's list.
// archive/zip passes all of these on: "../x", "/x", "a\x", "", "x\x00".
func checkPath(p string) error {
	switch {
	case p == "":
		return errors.New("it is empty")
	case len(p) > 1000:
		return errors.New("it is longer than 1000 bytes")
	case !utf8.ValidString(p):
		return errors.New("it is not UTF-8")
	case strings.ContainsFunc(p, func(r rune) bool { return !unicode.IsGraphic(r) }):
		return errors.New("it has a control character, or one that does not show")
	case strings.ContainsAny(p, `\:`):
		return errors.New(`it has a "\" or ":"`) // separators, drives and streams elsewhere
	case path.IsAbs(p):
		return errors.New("it is absolute")
	case p == "." || !fs.ValidPath(p):
		return errors.New(`it has a part that is "..", "." or empty`)
	}
	for part := range strings.SplitSeq(p, "/") {
		if len(part) > 255 {
			return errors.New("a part of it is longer than 255 bytes")
		}
	}
	return nil
}

// sameFile returns a key that is equal for paths that some file system takes
// for the same: those of macOS and Windows ignore case, and macOS also whether
// "é" is one character or two.
func sameFile(p string) string {
	return norm.NFC.String(cases.Fold().String(norm.NFD.String(p)))
}

// names collects paths and finds those that cannot be in one directory.
type names map[string]node // by sameFile

type node struct {
	path  string
	isDir bool
	owner int // index of the archive
}

// add adds a path and the directories above it. It returns the path that is in
// its way, if there is one, and why. The same file again is in its own way, but
// only this says nothing about danger: again is true then.
func (n names) add(p string, isDir bool, owner int) (other node, again bool, err error) {
	for dir := path.Dir(p); dir != "." && dir != "/"; dir = path.Dir(dir) {
		if other, _, err := n.addOne(dir, true, owner); err != nil {
			return other, false, err
		}
	}
	return n.addOne(p, isDir, owner)
}

func (n names) addOne(p string, isDir bool, owner int) (other node, again bool, err error) {
	key := sameFile(p)
	other, taken := n[key]
	switch {
	case !taken:
		n[key] = node{p, isDir, owner}
	case other.path != p:
		return other, false, fmt.Errorf("%q and %q are the same name where case or composition does not count", other.path, p)
	case other.isDir != isDir:
		return other, false, fmt.Errorf("%q is a file and a directory", p)
	case !isDir:
		return other, true, fmt.Errorf("%q is there twice", p)
	}
	return other, false, nil
}
