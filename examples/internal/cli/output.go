package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/dockercache/dockercache/artifacts/workflow"
)

// options are what an Output needs to know; see [FlagSet].
type options struct {
	json, progress, quiet, verbose, annotate bool
	advice                                   func(error) string
}

// An Output is what a program prints: results on standard output, all else on standard
// error. Much of it is text that is not trusted, and in a job the runner reads all of
// it for commands: nothing is printed that [workflow.Plain] did not make harmless. It
// is safe for concurrent use.
type Output struct {
	display
	// Log logs to standard error.
	Log *slog.Logger
	// Mask makes the runner of GitHub Actions hide a secret. It is nil where there is
	// none, or where standard error is a file, which would keep the secret.
	Mask func(secret string)

	program        string
	options        options
	stdout, stderr io.Writer
	commands       *workflow.Commands // to the runner; nil without annotations
	stop           sync.Once

	mu        sync.Mutex
	failures  int
	unprinted error
}

func newOutput(program string, stdout, stderr io.Writer, o options) *Output {
	out := &Output{display: newDisplay(stderr, o.progress && !o.quiet), program: program, options: o}
	above := out.above(stderr)
	out.stdout, out.stderr = out.above(stdout), workflow.PlainWriter(above)
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelDebug
	}
	out.Log = slog.New(slog.NewTextHandler(out.stderr, &slog.HandlerOptions{Level: level}))
	if os.Getenv("GITHUB_ACTIONS") != "true" {
		return out
	}
	// The runner reads commands from both outputs; standard output is for results.
	commands := workflow.NewCommands(above)
	if o.annotate {
		out.commands = commands
	}
	if !isFile(stderr) {
		out.Mask = maskOnce(commands)
	}
	return out
}

// isFile reports whether what is printed ends in a file, and not at a person or the
// runner of a CI system.
func isFile(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}

// maskOnce returns what makes the runner hide a secret. AWS and the registry both
// know the password of ECR.
func maskOnce(commands *workflow.Commands) func(secret string) {
	var masked sync.Map
	return func(secret string) {
		if _, again := masked.LoadOrStore(secret, true); !again {
			_, _ = commands.Mask(secret) // what cannot be printed need not be hidden
		}
	}
}

// Print prints a result: with -json the record, else the text. An empty one is left
// out. It remembers when it cannot print: a script that reads nothing must not take
// that for "none".
func (o *Output) Print(record any, text string) {
	switch {
	case o.options.json && record == nil, !o.options.json && text == "":
		return
	case o.options.json:
		raw, err := json.Marshal(record)
		o.print(o.stdout, string(workflow.PlainJSON(raw)), err)
	default:
		o.print(o.stdout, workflow.Plain(text), nil)
	}
}

// Remark prints text for people: on standard error with -json, which has standard
// output for the records alone.
func (o *Output) Remark(text string) {
	if o.options.json {
		o.Note(text)
		return
	}
	o.Print(nil, text)
}

func (o *Output) print(w io.Writer, text string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		_, err = fmt.Fprintln(w, strings.TrimSuffix(text, "\n"))
	}
	if err != nil && o.unprinted == nil {
		o.unprinted = err
		fmt.Fprintf(o.stderr, "%s: print the results: %v\n", o.program, err)
	}
}

// Note prints a line that is no result.
func (o *Output) Note(line string) { fmt.Fprintln(o.stderr, line) }

// Remind prints a line that is neither a result nor a warning; "" is none.
func (o *Output) Remind(text string) {
	if text != "" {
		o.Note(o.program + ": " + text)
	}
}

// Warn prints a warning.
func (o *Output) Warn(text string) {
	o.Note(o.program + ": warning: " + text)
	_ = o.commands.Warning(o.title(), text)
}

// Fail prints an error as Report does, and makes [Output.Code] return [Failed].
func (o *Output) Fail(err error) {
	o.Failed()
	o.Report(err)
}

// Failed is Fail for an error that was printed before.
func (o *Output) Failed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failures++
}

// Advice returns what a person can do about an error, "" if that is not known or err is
// nil: the program's own, or else that of all programs for files.
func (o *Output) Advice(err error) string {
	if o.options.advice != nil && err != nil {
		if text := o.options.advice(err); text != "" {
			return text
		}
	}
	return fileAdvice(err)
}

// Report prints an error and what to do about it.
func (o *Output) Report(err error) {
	text := err.Error()
	if advice := o.Advice(err); advice != "" {
		text += "\n  What to do: " + advice
	}
	o.Note(o.program + ": " + text)
	_ = o.commands.Error(o.title(), text)
}

// Verbose reports whether -v was given.
func (o *Output) Verbose() bool { return o.options.verbose }

// Notice annotates the run in Actions.
func (o *Output) Notice(text string) { _ = o.commands.Notice(o.title(), text) }

// Group prints lines under a title, in Actions as a group.
func (o *Output) Group(title string, lines []string) {
	if o.commands == nil {
		o.Note(title)
	}
	_ = o.commands.Group(title)
	for _, line := range lines {
		o.Note(line)
	}
	_ = o.commands.EndGroup()
}

func (o *Output) title() workflow.Annotation { return workflow.Annotation{Title: o.program} }

// Stop ends the display of progress.
func (o *Output) Stop() { o.stop.Do(o.end) }

// Code returns the exit code, after what was printed.
func (o *Output) Code(ctx context.Context) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return Interrupted
	case o.failures > 0 || o.unprinted != nil:
		return Failed
	}
	return OK
}
