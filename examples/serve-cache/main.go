// Serve-cache serves a directory of tarballs as a read-only registry, for engines and
// clusters that pull from it, or have it as a mirror.
//
//	serve-cache [-dir DIR] [-addr 127.0.0.1:5000] [-registry HOST] [-platform OS/ARCH,...] [-fill HOST/PATH/*,...]
//
// See -h for the flags and the exit codes.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/distribution/reference"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/server"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/registryflags"
	"github.com/dockercache/dockercache/examples/internal/report"
	"github.com/dockercache/dockercache/examples/internal/store"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/tagging"
)

var program = cli.Program{
	Name: "serve-cache",
	Usage: `Usage: serve-cache [flags]

Serves the images of all tarballs in DIR as a read-only registry, until it is
interrupted. An image registry.example/team/image:v1 is there as
ADDRESS/registry.example/team/image:v1. A mirror of registry.example is at
ADDRESS/registry.example, or at ADDRESS for clients that state which registry they
mean (containerd does). ADDRESS/healthz reports whether it works, ADDRESS/metrics
has numbers for Prometheus.

Files that are not served are named on standard error, with the reason.

With -fill an image that is asked for and is not in DIR is fetched from its own
registry, served while it comes, and stocked.

Without -password-file or -token-file every client that reaches ADDRESS reads every
image, and with -fill whatever this program's credentials can read of the
repositories that are allowed. Without -tls-cert nothing is encrypted.
`,
	Notes: `Environment: for a bucket the variables of AWS's SDK; with -fill these too, and
GITHUB_TOKEN or GH_TOKEN, for ghcr.io.

Exit codes: 1 it cannot serve, 2 wrong usage, 130 interrupted.
`,
	Setup: func(f *cli.FlagSet) cli.Runner {
		o := &options{flags: f}
		f.StringVar(&o.dir, "dir", "", store.Usage)
		o.s3.RegisterReads(f.FlagSet)
		f.StringVar(&o.addr, "addr", "127.0.0.1:5000", "where to listen, as `HOST:PORT`; port 0 is any that is free")
		f.StringVar(&o.registry, "registry", "", "the registry, as `HOST`[:PORT], that clients mean which name none, as Docker's \"registry-mirrors\" do: docker.io (default: what names none is not found)")
		f.Var(&o.platforms, "platform", "the platforms of all clients, as `OS/ARCH`[/VARIANT], separated by commas: an index is served only where those that it lists are stocked (default: also where only some are). For podman and CRI-O, which do not ask another registry for the rest of an image")
		f.VerboseFlag("log each request on standard error")
		f.Section("Who may read")
		f.StringVar(&o.access.certificate, "tls-cert", "", "the server's certificate, and those above it, a `FILE` in PEM (default: plain HTTP)")
		f.StringVar(&o.access.key, "tls-key", "", "the certificate's private key, a `FILE` in PEM")
		f.StringVar(&o.access.passwords, "password-file", "", "who may read: a `FILE` with a line USER:PASSWORD for each")
		f.StringVar(&o.access.tokens, "token-file", "", "the tokens with which clients may read (Authorization: Bearer TOKEN), a `FILE` with one a line")
		f.Section(fillSection)
		f.Var(&o.fill, "fill", "fetch what is not in DIR, if it is of one of these `REPOSITORIES`, separated by commas: HOST/REPOSITORY, or HOST/PATH/* for all below (default: none)")
		o.scheme = tagging.Scheme{KeepTag: true, Repository: true, Platform: true, NoSuffix: true}
		f.Var(&o.scheme, "naming", "what the tarballs' names are made of, as `SCHEME`, see docker-cache; the platform must be in it")
		f.Var((*cli.Size)(&o.open.Quota), "quota", "how much all files in DIR may take, as `SIZE`, such as 500GB (default: what the disk has)")
		o.history.Register(f.FlagSet)
		o.upstream.Register(f.FlagSet)
		return o
	},
}

func main() { cli.Main(program.Run) }

type options struct {
	flags               *cli.FlagSet
	dir, addr, registry string
	platforms           cli.CommaList
	s3                  store.S3
	access              access
	fill                repositories
	scheme              tagging.Scheme
	upstream            registryflags.Flags
	open                cache.Options
	history             report.History

	server server.Options
}

// fillSection is the section of the flags that are for -fill alone.
const fillSection = "What is not in DIR"

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
	if o.dir, err = o.s3.Dir(o.dir, o.flags.FlagSet); err != nil {
		return err
	}
	if err := o.checkFill(); err != nil {
		return err
	}
	err = o.access.check()
	o.server.Authorize = o.access.authorize
	return err
}

// checkFill finds out what is wrong with the flags for -fill.
func (o *options) checkFill() error {
	switch given := o.flags.GivenIn(fillSection); {
	case len(o.fill) == 0 && given != "":
		return fmt.Errorf("%s is for -fill: give that too, or leave it out", given)
	case len(o.fill) > 0 && store.IsBucket(o.dir):
		return fmt.Errorf("-fill is for directories, and -dir %s is a bucket: leave it out", o.dir)
	case len(o.fill) > 0 && !o.scheme.Platform:
		return fmt.Errorf("-naming %s: images of several platforms would be one tarball: add +platform", &o.scheme)
	}
	return errors.Join(o.upstream.Check(), o.history.Check())
}

func (o *options) Run(ctx context.Context, out *cli.Output) int {
	if err := o.serve(ctx, out); err != nil {
		out.Fail(err)
	}
	return out.Code(ctx)
}

// serve serves until ctx ends.
func (o *options) serve(ctx context.Context, out *cli.Output) error {
	o.open.Logger = out.Log
	dir, err := store.Open(ctx, o.dir, &o.open, &o.s3)
	if err != nil {
		return err
	}
	o.server.Logger = out.Log
	if len(o.fill) > 0 {
		client, err := o.upstream.Client(out, registry.Options{})
		if err != nil {
			return err
		}
		o.history.Open("serve-cache", o.dir, out)
		o.server.Upstream = &upstream{o.fill, client, dir.(*cache.Dir), o.scheme, &o.history}
	}
	handler := server.NewOf(dir, &o.server)
	images, err := handler.Look(ctx) // fails now rather than at a request
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		return err
	}
	scheme := "http"
	if o.access.tls != nil {
		scheme = "https"
	}
	s := &http.Server{
		Handler:   handler,
		TLSConfig: o.access.tls,
		// A layer takes as long as the client does; a request does not.
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
	}
	// What is being fetched ends in order: the rest of it is for the next time.
	defer handler.Close()
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	out.Print(nil, fmt.Sprintf("serving %d images of %s at %s://%s", images, dir.Path(), scheme, listener.Addr()))
	if out.Code(ctx) == cli.Failed { // the address could not be printed
		return listener.Close()
	}
	serve := s.Serve
	if o.access.tls != nil {
		serve = func(l net.Listener) error { return s.ServeTLS(l, "", "") }
	}
	if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
