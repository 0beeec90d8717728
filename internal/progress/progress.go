// Package progress shows people how far the images are that an example works on:
// bars on a terminal, a line now and then in a log.
package progress

import (
	"io"
	"os"

	"golang.org/x/term"

	"github.com/dockercache/dockercache/cache"
)

// Display shows how far images are, on standard error.
type Display interface {
	// Image begins to show an image, and returns what to tell about it and what
	// to call at its end.
	Image(name string) (tell func(cache.Progress), end func())
	// Above returns where to print so that it stands above what is shown.
	Above(w io.Writer) io.Writer
	// Stop ends it.
	Stop()
}

// New shows bars on a terminal, and lines now and then elsewhere.
func New(stderr io.Writer, quiet bool) Display {
	if quiet {
		return none{}
	}
	if IsTerminal(stderr) {
		return newBars(stderr)
	}
	return newLines(stderr)
}

// IsTerminal tells whether what is printed is seen on a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

type none struct{}

func (none) Image(string) (func(cache.Progress), func()) { return nil, func() {} }
func (none) Above(w io.Writer) io.Writer                 { return w }
func (none) Stop()                                       {}
