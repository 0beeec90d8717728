//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	runPart(os.Args)
	o, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "benchmark: %v\n", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, o, os.Stdout)
	stop()
	exit(err)
}

// runPart does what must be another process, when this program has run itself
// for it, and exits.
func runPart(args []string) {
	if len(args) < 3 {
		return
	}
	switch args[1] {
	case serveCommand:
		exit(serve(args[2], os.Stdin, os.Stdout))
	case measureCommand:
		exit(measure(args[2:]))
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "benchmark: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run makes the images, measures, and prints; whatever happens, nothing that it
// started or made is left behind.
func run(ctx context.Context, o *options, stdout io.Writer) (err error) {
	warnUnlessMemory(o.dir)
	scratch, err := os.MkdirTemp(o.dir, "dcb") // short: docker's socket is in it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	b := &bench{options: o, scratch: scratch}
	if err := b.makeImages(); err != nil {
		return err
	}
	if b.server, err = startServer(ctx, scratch); err != nil {
		return err
	}
	defer b.server.stop()
	end, err := b.findTools(ctx)
	defer end()
	if err != nil {
		return err
	}
	if err := b.measureAll(ctx); err != nil {
		return err
	}
	if err := b.measureKill(ctx); err != nil {
		return err
	}
	if err := b.measureSources(ctx); err != nil {
		return err
	}
	if err := b.measureRefresh(ctx); err != nil {
		return err
	}
	if err := b.measureLoads(ctx); err != nil {
		return err
	}
	b.print(stdout)
	return nil
}

// warnUnlessMemory says so when a disk would be measured too.
func warnUnlessMemory(dir string) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err == nil && s.Type != unix.TMPFS_MAGIC {
		fmt.Fprintf(os.Stderr, "benchmark: %s is not in memory: the disk is measured too, and results vary with it\n", dir)
	}
}
