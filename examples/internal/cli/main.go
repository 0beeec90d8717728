// Package cli is what the example programs have in common: a command line, exit
// codes, and what they print. It does not need a network.
package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// Exit codes of all examples.
const (
	OK          = 0
	Failed      = 1 // at least one image failed
	Usage       = 2 // wrong usage
	Interrupted = 130
)

// patience is how long run may take to clean up after a signal, in nanoseconds. A
// read or write on a hanging file system cannot be interrupted, and a person who pressed
// Ctrl-C wants it to end within a second; nothing unfinished is ever under a
// final name.
var patience atomic.Int64

func init() { patience.Store(int64(800 * time.Millisecond)) }

// CleanUp makes a program that [Main] runs have so long to clean up after a signal, from
// now on: one that has to remove what it made elsewhere, as in an engine. A second signal
// still ends it at once.
func CleanUp(limit time.Duration) { patience.Store(int64(limit)) }

// Main runs a program, such as [Program.Run], and exits with its code, or with
// [Interrupted] when SIGINT, SIGTERM or SIGHUP came; its context ends at the
// signal. A reader of its output that goes away does not kill it: writing then
// gives an error.
func Main(run func(ctx context.Context, args []string, stdout, stderr io.Writer) int) {
	signals := []os.Signal{syscall.SIGTERM}
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGHUP} {
		if !signal.Ignored(s) { // as by nohup, or by a shell for background jobs
			signals = append(signals, s)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	done := make(chan int, 1)
	go func() { done <- run(ctx, os.Args[1:], os.Stdout, os.Stderr) }()
	select {
	case code := <-done:
		os.Exit(code)
	case <-ctx.Done():
		stop() // a second signal ends it at once
		select {
		case <-done:
		case <-time.After(time.Duration(patience.Load())):
		}
		os.Exit(Interrupted)
	}
}
