package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/dockercache/dockercache/internal/command"
)

func main() { command.Main(run) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseFlags(args, stdout, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return command.OK
	case err != nil:
		return command.Usage
	}
	report := &report{progress: newProgress(stderr, o.quiet), stdout: stdout, stderr: stderr, json: o.json}
	if !o.sample {
		defer report.stop()
		return stockAll(ctx, o, report)
	}
	end, err := setUpSample(o)
	if err != nil {
		fmt.Fprintf(stderr, "docker-cache: set up the sample: %v\n", err)
		return command.Failed
	}
	code := stockAll(ctx, o, report)
	report.stop()
	end(code == command.OK)
	if code == command.OK {
		report.howToLoad(o.dir)
	}
	return code
}
