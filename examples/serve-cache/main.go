// Serve-cache serves a directory of tarballs as a read-only registry, for engines and
// clusters that pull from it, or have it as a mirror.
//
//	serve-cache [-dir DIR] [-addr 127.0.0.1:5000] [-registry HOST] [-platform OS/ARCH,...]
//
// See -h for the flags and the exit codes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/distribution/reference"

	"github.com/dockercache/dockercache/cache/server"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/store"
	"github.com/dockercache/dockercache/registry"
)

var program = cli.Program{
	Name: "serve-cache",
	Usage: `Usage: serve-cache [flags]

Serves the images of all tarballs in DIR as a read-only registry, until it is
interrupted. An image registry.example/team/image:v1 is there as
ADDRESS/registry.example/team/image:v1. A mirror of registry.example is at
ADDRESS/registry.example, or at ADDRESS for clients that state which registry they
mean (containerd does). ADDRESS/healthz reports whether it works.

Files that are not served are named on standard error, with the reason.

There is no password and no encryption: every client that reaches ADDRESS reads
every image.
`,
	Notes: `Environment: for a bucket the variables of AWS's SDK.

Exit codes: 1 it cannot serve, 2 wrong usage, 130 interrupted.
`,
	Setup: func(f *cli.FlagSet) cli.Runner {
		o := &options{flags: f.FlagSet}
		f.StringVar(&o.dir, "dir", "", store.Usage)
		o.s3.RegisterReads(f.FlagSet)
		f.StringVar(&o.addr, "addr", "127.0.0.1:5000", "where to listen, as `HOST:PORT`; port 0 is any that is free")
		f.StringVar(&o.registry, "registry", "", "the registry, as `HOST`[:PORT], that clients mean which name none, as Docker's \"registry-mirrors\" do: docker.io (default: what names none is not found)")
		f.Var(&o.platforms, "platform", "the platforms of all clients, as `OS/ARCH`[/VARIANT], separated by commas: an index is served only where those that it lists are stocked (default: also where only some are). For podman and CRI-O, which do not ask another registry for the rest of an image")
		f.VerboseFlag("log each request on standard error")
		return o
	},
}

func main() { cli.Main(program.Run) }

type options struct {
	flags               *flag.FlagSet
	dir, addr, registry string
	platforms           cli.CommaList
	s3                  store.S3

	server server.Options
}

func (o *options) Check(args []string) error {
	if err := cli.FlagsOnly(args); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(o.addr)
	switch {
	case err != nil:
		return fmt.Errorf("-addr %q: %w: want HOST:PORT", o.addr, err)
	case host == "": // as ":5000" is most often meant for this machine
		return fmt.Errorf("-addr %q would serve every network that this machine is on: name the HOST, 0.0.0.0 if that is what you want", o.addr)
	}
	if o.registry != "" {
		// A name without a host is one of Docker Hub's.
		named, err := reference.ParseNormalizedNamed(o.registry + "/x/y")
		if err != nil || reference.Domain(named) != o.registry {
			return fmt.Errorf("-registry %q: want HOST or HOST:PORT, as docker.io", o.registry)
		}
		o.server.Registry = o.registry
	}
	for _, text := range o.platforms {
		p, err := registry.ParsePlatform(text)
		if err != nil {
			return fmt.Errorf("-platform: %w", err)
		}
		o.server.Platforms = append(o.server.Platforms, p)
	}
	o.dir, err = o.s3.Dir(o.dir, o.flags)
	return err
}

func (o *options) Run(ctx context.Context, out *cli.Output) int {
	if err := o.serve(ctx, out); err != nil {
		out.Fail(err)
	}
	return out.Code(ctx)
}

// serve serves until ctx ends.
func (o *options) serve(ctx context.Context, out *cli.Output) error {
	dir, err := store.Open(ctx, o.dir, nil, &o.s3)
	if err != nil {
		return err
	}
	o.server.Logger = out.Log
	handler := server.NewOf(dir, &o.server)
	images, err := handler.Look(ctx) // fails now rather than at a request
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		return err
	}
	s := &http.Server{
		Handler: handler,
		// A layer takes as long as the client does; a request does not.
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
	}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	out.Print(nil, fmt.Sprintf("serving %d images of %s at http://%s", images, dir.Path(), listener.Addr()))
	if out.Code(ctx) == cli.Failed { // the address could not be printed
		return listener.Close()
	}
	if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
