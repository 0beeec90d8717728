package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"path/filepath"

	"github.com/dockercache/dockercache/artifacts/workflow"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/internal/progress"
)

// The outcomes beside those of the package loader.
const (
	failed  = "failed"
	missing = "missing"
)

// result is what -json prints for an image. The names are a contract: others
// parse them.
type result struct {
	Image         string  `json:"image"`          // as it was asked for
	Tarball       string  `json:"tarball"`        // path, "" if there is none
	Outcome       string  `json:"outcome"`        // present, loaded, loaded-delta, missing, failed
	BytesStreamed int64   `json:"bytes_streamed"` // to the engine
	BytesTotal    int64   `json:"bytes_total"`    // of the tarball
	Seconds       float64 `json:"seconds"`
	Error         string  `json:"error"` // "" unless missing or failed
}

// report prints what happened, image by image. Names and errors are foreign text,
// which in a job the runner reads for commands: nothing goes out that was not made
// plain.
type report struct {
	progress.Display
	stdout, stderr    io.Writer
	json              bool
	failures, missing int
	unsaid            error // why a line could not be printed
}

func newReport(o *options, stdout, stderr io.Writer) *report {
	p := &report{Display: progress.New(stderr, o.quiet), json: o.json}
	p.stdout, p.stderr = p.Above(stdout), workflow.PlainWriter(p.Above(stderr))
	return p
}

// log returns a logger to standard error.
func (p *report) log(verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: level}))
}

// say prints a line to standard output, and remembers when it cannot.
func (p *report) say(line string) {
	if _, err := fmt.Fprintln(p.stdout, line); err != nil && p.unsaid == nil {
		p.unsaid = err
		fmt.Fprintf(p.stderr, "load-image: print the results: %v\n", err)
	}
}

func (p *report) result(r result, err error) {
	r.Seconds = math.Round(r.Seconds*1000) / 1000
	if err != nil {
		r.Outcome, r.Error = failed, err.Error()
		if errors.Is(err, errMissing) {
			r.Outcome = missing
			p.missing++
		} else {
			p.failures++
		}
		fmt.Fprintf(p.stderr, "load-image: %q: %v\n", r.Image, err)
	}
	if p.json {
		line, _ := json.Marshal(r) // strings and numbers always encode
		p.say(string(workflow.PlainJSON(line)))
		return
	}
	name, total := filepath.Base(r.Tarball), progress.Size(r.BytesTotal)
	var line string
	switch r.Outcome {
	case string(loader.Present):
		line = fmt.Sprintf("present       %s  %s, nothing sent, in %.1f s", name, total, r.Seconds)
	case string(loader.Loaded), string(loader.Delta):
		line = fmt.Sprintf("%-12s  %s  %s sent of %s in %.1f s", r.Outcome, name, progress.Size(r.BytesStreamed), total, r.Seconds)
	default:
		line = fmt.Sprintf("%-12s  %q after %.1f s", r.Outcome, r.Image, r.Seconds)
	}
	p.say(workflow.Plain(line))
}
