// Package lazy makes what a run of a program may never need when it first does.
package lazy

import (
	"regexp"
	"sync"
)

// Regexp returns what compiles an expression at its first use. Compiling all that
// these packages have took each run of docker-cache 2 ms, also those that find
// nothing to do. Like [regexp.MustCompile] it panics if the expression is wrong.
func Regexp(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}
