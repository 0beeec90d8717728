package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/internal/command"
)

func main() { command.Main(run) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseFlags(args, stdout, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return command.OK
	case errors.Is(err, artifacts.ErrEvent):
		return command.Failed // the event is at fault, not the command line
	case err != nil:
		return command.Usage
	}
	report := newReport(o, stdout, stderr)
	if !o.sample {
		defer report.Stop()
		return work(ctx, o, report)
	}
	end, err := setUpSample(o)
	if err != nil {
		fmt.Fprintf(stderr, "docker-cache: set up the sample: %v\n", err)
		return command.Failed
	}
	code := stockAll(ctx, o, report)
	report.Stop()
	end(code == command.OK)
	if code == command.OK {
		report.howToLoad(o.dir)
	}
	return code
}

// work does what was asked for, and reports it in full also when it fails.
func work(ctx context.Context, o *options, report *report) int {
	code := command.OK
	if o.request != nil {
		code = fetchBuild(ctx, o, report, report.log(o.verbose))
	}
	if code == command.OK {
		code = stockAll(ctx, o, report)
	}
	report.summarize(os.Getenv("GITHUB_STEP_SUMMARY"))
	return code
}
