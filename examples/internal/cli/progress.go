package cli

import (
	"io"
	"os"

	"golang.org/x/term"

	"github.com/dockercache/dockercache/cache/tarball"
)

// A display shows people how far images are: bars on a terminal, a line now and then
// in a log.
type display interface {
	// Track begins to show an image, and returns what to call with its progress, by one
	// goroutine at a time, and what to call at its end.
	Track(name string) (report func(tarball.Progress), end func())
	// above returns where to print so that it stands above what is shown.
	above(w io.Writer) io.Writer
	end()
}

func newDisplay(stderr io.Writer, show bool) display {
	switch {
	case !show:
		return none{}
	case isTerminal(stderr):
		return newBars(stderr)
	}
	return newLines(stderr)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

type none struct{}

func (none) Track(string) (func(tarball.Progress), func()) { return nil, func() {} }
func (none) above(w io.Writer) io.Writer                   { return w }
func (none) end()                                          {}
