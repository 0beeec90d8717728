package main

import (
	"io"
	"os"

	"golang.org/x/term"

	"github.com/dockercache/dockercache/cache"
)

// progress shows how far the images are, on standard error.
type progress interface {
	// image begins to show an image, and returns what to tell about it and what
	// to call at its end.
	image(name string) (tell func(cache.Progress), end func())
	// above returns where to print so that it stands above what is shown.
	above(w io.Writer) io.Writer
	// stop ends it.
	stop()
}

// newProgress shows bars on a terminal, and lines now and then elsewhere.
func newProgress(stderr io.Writer, quiet bool) progress {
	if quiet {
		return noProgress{}
	}
	if isTerminal(stderr) {
		return newBars(stderr)
	}
	return newLines(stderr)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

type noProgress struct{}

func (noProgress) image(string) (func(cache.Progress), func()) { return nil, func() {} }
func (noProgress) above(w io.Writer) io.Writer                 { return w }
func (noProgress) stop()                                       {}
