// Package marks knows the names of the records beside tarballs: .<tarball>.mark, and
// .<tarball>.<user number>.mark where that belongs to another user.
package marks

import (
	"regexp"
	"strings"
	"sync"
)

// Kind is how the name of a record ends, after a dot.
const Kind = "mark"

// Form returns the form of the name of a record, of which the first group is the
// tarball's.
var Form = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?s)^\.([^.].*\.tar)(?:\.[0-9]{1,10})?\.` + Kind + `$`)
})

// TarballOf returns the name of the tarball of which a file is a record, by its name; ""
// if it is none.
func TarballOf(name string) string {
	if !strings.HasSuffix(name, "."+Kind) { // most files: a directory may have thousands
		return ""
	}
	if m := Form().FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return ""
}
