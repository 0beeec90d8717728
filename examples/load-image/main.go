package main

import (
	"context"
	"errors"
	"flag"
	"io"

	"github.com/dockercache/dockercache/internal/command"
)

// noTarball is the exit code when all that failed is that tarballs are missing: a
// job can pull those images.
const noTarball = 3

func main() { command.Main(run) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseFlags(args, stdout, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return command.OK
	case err != nil:
		return command.Usage
	}
	report := newReport(o, stdout, stderr)
	defer report.Stop()
	return loadAll(ctx, o, report)
}
