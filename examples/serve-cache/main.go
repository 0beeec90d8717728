package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/dockercache/dockercache/artifacts/workflow"
	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/server"
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
	// Names of files and what clients ask for are foreign text.
	stderr = workflow.PlainWriter(stderr)
	if err := serve(ctx, o, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "serve-cache: %v\n", err)
		return command.Failed
	}
	return command.Interrupted
}

// serve serves until ctx ends.
func serve(ctx context.Context, o *options, stdout, stderr io.Writer) error {
	dir, err := cache.OpenDir(o.dir, nil)
	if err != nil {
		return err
	}
	entries, err := dir.List(ctx) // says now what a client would be told later
	if err != nil {
		return err
	}
	images := 0
	for _, e := range entries {
		if e.Err == nil {
			images++
		}
	}
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelDebug
	}
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		return err
	}
	s := &http.Server{
		Handler: server.New(dir, &server.Options{Logger: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))}),
		// A layer takes as long as the client does; a request does not.
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
	}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if _, err := fmt.Fprintf(stdout, "serving %d images of %s at http://%s\n", images, workflow.Plain(dir.Path()), listener.Addr()); err != nil {
		return errors.Join(err, listener.Close())
	}
	if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
