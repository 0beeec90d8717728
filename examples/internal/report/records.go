// Package report has what the example programs print: records for -json, and the same
// as text for people.
package report

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dockercache/dockercache/artifacts/workflow"
	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/examples/internal/cli"
)

// The names of the records' fields are a contract: other programs parse them.
// examples/JSON.md describes them.

// Outcomes beside those of the packages cache and loader.
const (
	Failed  = "failed"
	Missing = "missing"
)

// Stocked is what docker-cache prints for an image.
type Stocked struct {
	Image           string  `json:"image"`            // as it was asked for
	Source          string  `json:"source"`           // the reference that it was resolved at, "" if none had it
	Tarball         string  `json:"tarball"`          // path, "" if it did not come to that
	Digest          string  `json:"digest"`           // of the manifest
	Outcome         string  `json:"outcome"`          // stocked, unchanged, superseded, failed
	BytesTotal      int64   `json:"bytes_total"`      // of the tarball
	BytesDownloaded int64   `json:"bytes_downloaded"` // of layers
	BytesReused     int64   `json:"bytes_reused"`     // of layers, from tarballs in the directory
	BytesCloned     int64   `json:"bytes_cloned"`     // of these, by sharing the space on the disk
	BytesCopied     int64   `json:"bytes_copied"`     // of these, by copying
	BytesResumed    int64   `json:"bytes_resumed"`    // of layers, that an earlier attempt had left
	Seconds         float64 `json:"seconds"`
	Error           string  `json:"error"`    // "" unless failed
	Advice          string  `json:"advice"`   // what to do about the error
	Platform        string  `json:"platform"` // that was asked for, OS/ARCH[/VARIANT]

	Sources []Source `json:"sources"` // what each gave, the preferred first
	Phases  Phases   `json:"phases"`  // how long each took

	Timing       timing.Recorder `json:"-"` // observes the work
	Start        time.Time       `json:"-"`
	OneOfSeveral bool            `json:"-"` // platforms of the image, see What
	Late         bool            `json:"-"` // the time for the run was over before it was done
}

// What is what was asked for, quoted, with the platform if there are several.
func (r *Stocked) What() string {
	if r.OneOfSeveral {
		return fmt.Sprintf("%q for %s", r.Image, r.Platform)
	}
	return strconv.Quote(r.Image)
}

// label is what was asked for, with the platform if there are several.
func (r *Stocked) label() string {
	if r.OneOfSeveral {
		return r.Image + " for " + r.Platform
	}
	return r.Image
}

// Put takes over what [cache.Dir.Put] did.
func (r *Stocked) Put(put *cache.Result) {
	r.Outcome, r.BytesTotal, r.BytesDownloaded = string(put.Outcome), put.Total, put.Downloaded
	r.BytesReused, r.BytesCloned, r.BytesCopied, r.BytesResumed = put.Reused, put.Cloned, put.Copied, put.Resumed
	r.Sources = Sources(put.Sources)
	if put.Total > 0 {
		r.Tarball = put.Path
	}
}

// End ends the work on the image. The advice is what to do about the error.
func (r *Stocked) End(err error, advice string) {
	if r.Seconds = seconds(r.Start); r.Sources == nil {
		r.Sources = []Source{}
	}
	r.Phases = end(&r.Timing)
	if err != nil {
		r.Outcome, r.Error, r.Advice = Failed, err.Error(), advice
	}
}

// Log logs what the sources of the image gave.
func (r *Stocked) Log(out *cli.Output) { LogSources(out, filepath.Base(r.Tarball), r.Sources) }

// Text is the record for people.
func (r *Stocked) Text() string {
	name, total := filepath.Base(r.Tarball), cli.Bytes(r.BytesTotal)
	switch cache.Outcome(r.Outcome) {
	case cache.Stocked:
		line := fmt.Sprintf("stocked    %s  %s from %s in %.1f s", name, total, r.Source, r.Seconds)
		var parts []string
		if r.BytesReused > 0 {
			parts = append(parts, fmt.Sprintf("%s reused (%s cloned, %s copied)", cli.Bytes(r.BytesReused), cli.Bytes(r.BytesCloned), cli.Bytes(r.BytesCopied)))
		}
		if r.BytesResumed > 0 {
			parts = append(parts, cli.Bytes(r.BytesResumed)+" kept from an earlier attempt")
		}
		if len(parts) > 0 {
			line += ", of that " + strings.Join(parts, ", ")
		}
		return line
	case cache.Unchanged:
		return fmt.Sprintf("unchanged  %s  %s, same digest at %s, in %.1f s", name, total, r.Source, r.Seconds)
	case cache.Superseded:
		return fmt.Sprintf("superseded %s  a newer build run's is there, in %.1f s", name, r.Seconds)
	}
	return fmt.Sprintf("failed     %s after %.1f s", r.What(), r.Seconds)
}

// Summarize ends the report of docker-cache: in Actions with a notice, and a table in
// the step's summary, with what is off and notes.
func Summarize(out *cli.Output, results []*Stocked, file string, notes ...string) {
	count := map[string]int{}
	rows := make([]workflow.SummaryRow, len(results))
	var hints []string
	for i, r := range results {
		count[r.Outcome]++
		rows[i] = workflow.SummaryRow{
			Image: r.label(), Outcome: r.Outcome, Source: r.Source, Size: r.BytesTotal, Downloaded: r.BytesDownloaded, Reused: r.BytesReused, Resumed: r.BytesResumed,
			Start: r.Start, Duration: time.Duration(r.Seconds * float64(time.Second)), Error: r.Error, Advice: r.Advice,
			Phases: r.Phases.summary(), Sources: summarySources(r.Sources, out.Verbose()),
		}
		if off := r.off(); off != "" {
			hints = append(hints, r.label()+": "+off)
		}
	}
	out.Notice(fmt.Sprintf("%d images: %d stocked, %d unchanged, %d superseded, %d failed",
		len(rows), count[string(cache.Stocked)], count[string(cache.Unchanged)], count[string(cache.Superseded)], count[Failed]))
	if file != "" {
		if err := workflow.AppendSummary(file, rows, append(hints, notes...)); err != nil {
			out.Warn(fmt.Sprintf("write the summary: %v", err))
		}
	}
}

// Late says which images were not done when the time for the run was over, "" if all were.
func Late(ctx context.Context, results []*Stocked) string {
	var late []string
	for _, r := range results {
		if r.Late {
			late = append(late, r.What())
		}
	}
	if len(late) == 0 {
		return ""
	}
	return fmt.Sprintf("%v: %d of %d images were not done: %s", context.Cause(ctx), len(late), len(results), strings.Join(late, ", "))
}

// HowToLoad says what can be done with the tarballs of the sample.
func HowToLoad(dir, branch string, results []*Stocked) string {
	return fmt.Sprintf(`
The tarballs are in %s. Load one into an engine with one of
  load-image -dir %[1]s -branch %s %s
  docker load -i %s
  podman load -i %[4]s
They are yours to keep or to remove:
  rm -r %[1]s
`, dir, branch, results[0].Image, results[0].Tarball)
}

// Loaded is what load-image prints for an image.
type Loaded struct {
	Image         string  `json:"image"`          // as it was asked for
	Tarball       string  `json:"tarball"`        // path, "" if there is none
	Digest        string  `json:"digest"`         // of the tarball's manifest
	Outcome       string  `json:"outcome"`        // present, loaded, loaded-delta, missing, failed
	BytesStreamed int64   `json:"bytes_streamed"` // to the engine
	BytesTotal    int64   `json:"bytes_total"`    // of the tarball
	Seconds       float64 `json:"seconds"`
	Error         string  `json:"error"`  // "" unless missing or failed
	Advice        string  `json:"advice"` // what to do about the error
	Note          string  `json:"note"`   // what is special about the tarball, "" for nothing
	Phases        Phases  `json:"phases"` // how long each took

	Timing timing.Recorder `json:"-"` // observes the work
	Engine string          `json:"-"` // what it is, see [loader.Product]; "" if it did not come to that
	Start  time.Time       `json:"-"`
}

// End ends the work on the image; with an error by this outcome. The advice is what to
// do about the error.
func (r *Loaded) End(err error, outcome, advice string) {
	r.Seconds, r.Phases = seconds(r.Start), end(&r.Timing)
	if err != nil {
		r.Outcome, r.Error, r.Advice = outcome, err.Error(), advice
	}
}

// Text is the record for people.
func (r *Loaded) Text() string {
	name, total := filepath.Base(r.Tarball), cli.Bytes(r.BytesTotal)
	note := ""
	if r.Note != "" {
		note = " (" + r.Note + ")"
	}
	switch loader.Outcome(r.Outcome) {
	case loader.Present:
		return fmt.Sprintf("present       %s  %s, nothing sent, in %.1f s%s", name, total, r.Seconds, note)
	case loader.Loaded, loader.Delta:
		return fmt.Sprintf("%-12s  %s  %s sent of %s in %.1f s%s", r.Outcome, name, cli.Bytes(r.BytesStreamed), total, r.Seconds, note)
	}
	return fmt.Sprintf("%-12s  %q after %.1f s", r.Outcome, r.Image, r.Seconds)
}

// Output is what merge-artifacts prints for an output.
type Output struct {
	Name       string `json:"name"`
	Reference  string `json:"reference"`
	Artifact   string `json:"artifact"` // that contains it
	File       string `json:"file"`     // in the directory
	RunID      int64  `json:"run_id"`
	RunAttempt int64  `json:"run_attempt"`
	Branch     string `json:"branch"` // of the run
}

// Text is the record for people and shells.
func (o *Output) Text() string { return o.Name + "=" + o.Reference }

// seconds is how long ago a time is, to the millisecond.
func seconds(start time.Time) float64 { return round(time.Since(start)) }
