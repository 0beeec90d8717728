package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dockercache/dockercache/artifacts/workflow"
	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/internal/command"
	"github.com/dockercache/dockercache/internal/progress"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/awsauth"
)

// failed is an outcome beside those of the package cache.
const failed = "failed"

// result is what -json prints for an image. The names are a contract: others
// parse them.
type result struct {
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
	Seconds         float64 `json:"seconds"`
	Error           string  `json:"error"` // "" unless failed

	start time.Time
}

// report prints what happened, image by image as each ends. Much of it is foreign
// text, and in a job the runner reads all of it for commands: nothing goes out
// that was not made plain.
type report struct {
	progress.Display
	stdout, stderr io.Writer
	json           bool
	commands       *workflow.Commands  // to the runner; nil outside of Actions
	mask           func(secret string) // tells the runner what to hide; nil where it must not
	said           bool                // standard error has the reason already, once for all images

	mu       sync.Mutex
	failures int
	unsaid   error // why a line could not be printed
	tarballs []string
	rows     []workflow.SummaryRow
}

func newReport(o *options, stdout, stderr io.Writer) *report {
	p := &report{Display: progress.New(stderr, o.quiet), stdout: stdout, json: o.json}
	above := p.Above(stderr)
	p.stderr = workflow.PlainWriter(above)
	if os.Getenv("GITHUB_ACTIONS") != "true" {
		return p
	}
	// The runner reads commands from both outputs; standard output is for results.
	p.commands = workflow.NewCommands(above)
	if !command.IsFile(stderr) {
		p.mask = maskOnce(p.commands)
	}
	return p
}

// maskOnce returns what has the runner hide a secret. AWS and the registry both
// know the password of ECR.
func maskOnce(commands *workflow.Commands) func(secret string) {
	var mu sync.Mutex
	masked := map[string]bool{}
	return func(secret string) {
		mu.Lock()
		defer mu.Unlock()
		if !masked[secret] {
			masked[secret] = true
			_, _ = commands.Mask(secret) // what cannot be printed need not be hidden
		}
	}
}

// log returns a logger to standard error.
func (p *report) log(verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: level}))
}

// say prints a line to standard output, and remembers when it cannot: a script
// that reads nothing must not take that for "no images".
func (p *report) say(line string) {
	if _, err := fmt.Fprintln(p.Above(p.stdout), line); err != nil && p.unsaid == nil {
		p.unsaid = err
		fmt.Fprintf(p.stderr, "docker-cache: print the results: %v\n", err)
	}
}

// tell prints a line that is no result.
func (p *report) tell(line string) { fmt.Fprintln(p.stderr, line) }

func (p *report) group(title string) {
	if p.commands != nil {
		_ = p.commands.Group(title)
		return
	}
	p.tell(title)
}

func (p *report) endGroup() {
	if p.commands != nil {
		_ = p.commands.EndGroup()
	}
}

// warn and failed print a line, and in Actions make an annotation of it.
func (p *report) warn(text string) {
	p.tell("docker-cache: warning: " + text)
	if p.commands != nil {
		_ = p.commands.Warning(workflow.Annotation{Title: "docker-cache"}, text)
	}
}

func (p *report) failed(err error) {
	p.tell("docker-cache: " + err.Error() + advice(err))
	if p.commands != nil {
		_ = p.commands.Error(workflow.Annotation{Title: "docker-cache"}, err.Error()+advice(err))
	}
}

// summarize ends the report: in Actions with a notice, and a table in the step's
// summary.
func (p *report) summarize(file string) {
	if len(p.rows) == 0 {
		return
	}
	if p.commands != nil {
		count := map[string]int{}
		for _, r := range p.rows {
			count[r.Outcome]++
		}
		_ = p.commands.Notice(workflow.Annotation{Title: "docker-cache"}, fmt.Sprintf("%d images: %d stocked, %d unchanged, %d superseded, %d failed",
			len(p.rows), count[string(cache.Stocked)], count[string(cache.Unchanged)], count[string(cache.Superseded)], count[failed]))
	}
	if file != "" {
		if err := workflow.AppendSummary(file, p.rows); err != nil {
			p.warn(fmt.Sprintf("write the summary: %v", err))
		}
	}
}

func (p *report) result(r result, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.Seconds = math.Round(r.Seconds*1000) / 1000
	if err != nil {
		p.failures++
		r.Outcome, r.Error = failed, err.Error()
		if !p.said {
			p.failed(fmt.Errorf("%q: %w", r.Image, err))
		}
	} else {
		p.tarballs = append(p.tarballs, r.Tarball)
	}
	p.rows = append(p.rows, workflow.SummaryRow{
		Image: r.Image, Outcome: r.Outcome, Source: r.Source, Size: r.BytesTotal, Downloaded: r.BytesDownloaded, Reused: r.BytesReused,
		Start: r.start, Duration: time.Duration(r.Seconds * float64(time.Second)), Error: r.Error,
	})
	if p.json {
		// A struct of strings and numbers always encodes.
		line, _ := json.Marshal(r)
		p.say(string(workflow.PlainJSON(line)))
		return
	}
	var line string
	switch r.Outcome {
	case string(cache.Stocked):
		line = fmt.Sprintf("stocked    %s  %s from %s in %.1f s", filepath.Base(r.Tarball), progress.Size(r.BytesTotal), r.Source, r.Seconds)
		if r.BytesReused > 0 {
			line += fmt.Sprintf(", of that %s reused (%s cloned, %s copied)", progress.Size(r.BytesReused), progress.Size(r.BytesCloned), progress.Size(r.BytesCopied))
		}
	case string(cache.Unchanged):
		line = fmt.Sprintf("unchanged  %s  %s, same digest at %s, in %.1f s", filepath.Base(r.Tarball), progress.Size(r.BytesTotal), r.Source, r.Seconds)
	case string(cache.Superseded):
		line = fmt.Sprintf("superseded %s  a newer build run's is there, in %.1f s", filepath.Base(r.Tarball), r.Seconds)
	default:
		line = fmt.Sprintf("failed     %q after %.1f s", r.Image, r.Seconds)
	}
	p.say(workflow.Plain(line))
}

// advice says what a person can do about an error, where that is known.
func advice(err error) string {
	var tips []string
	for _, a := range []struct {
		kind error
		tip  string
	}{
		{registry.ErrNoCredentials, "mend Docker's config file (DOCKER_CONFIG, ~/.docker/config.json) or the helper that it names"},
		{http.ErrSchemeMismatch, "if the registry speaks plain HTTP and the network in between can be trusted, allow it with -plain-http HOST:PORT"},
		{registry.ErrDisagree, "if the mirror is stale push the image there again; if it should never differ find out who pushed to it"},
		{registry.ErrDenied, "log in to the registry (docker login), or check what the credential may read"},
		{registry.ErrNotFound, "check the reference, and whether the build has pushed it there"},
		{registry.ErrUnreachable, "check the registry's name and the network, or try again later"},
		{registry.ErrInvalidAnswer, "check that the host is a registry and that no proxy changes its answers"},
		{registry.ErrNoPlatform, "ask for one of these with -platform"},
		{cache.ErrBlobDigest, "a registry holds damaged bytes: push the image there again, or leave that mirror out"},
		{syscall.ENOSPC, "make room in the directory"},
		{cache.ErrQuota, "make room in the directory, or give a larger -quota"},
	} {
		if errors.As(err, new(*awsauth.Error)) && a.kind == registry.ErrNoCredentials {
			continue // it says itself what to do
		}
		if errors.Is(err, a.kind) {
			tips = append(tips, a.tip)
		}
	}
	if len(tips) == 0 {
		return ""
	}
	return "\n  What to do: " + strings.Join(tips, "; ")
}

// howToLoad ends the sample.
func (p *report) howToLoad(dir string) {
	out := p.stdout
	if p.json {
		out = p.stderr // standard output is for the objects alone
	}
	fmt.Fprintf(out, "\nThe tarballs are in %s. Load one into an engine with one of\n", dir)
	fmt.Fprintf(out, "  docker load -i %s\n", p.tarballs[0])
	fmt.Fprintf(out, "  podman load -i %s\n", p.tarballs[0])
	fmt.Fprintf(out, "They are yours to keep or to remove:\n  rm %s\n", strings.Join(p.tarballs, " "))
}
