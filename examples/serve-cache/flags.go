package main

import (
	"flag"
	"fmt"
	"io"
	"net"

	"github.com/dockercache/dockercache/internal/command"
)

type options struct {
	dir, addr string
	verbose   bool
}

const usage = `Usage: serve-cache [flags]

Serves the images of all tarballs in DIR as a read-only registry, until it is
interrupted. An image registry.example/team/image:v1 is there as
ADDRESS/registry.example/team/image:v1, and for those who have this as a mirror of
registry.example as ADDRESS/team/image:v1.

Nobody is asked for a password and nothing is encrypted: whoever reaches ADDRESS
reads every image.

`

const usageExit = `
Exit codes: 1 it cannot serve, 2 wrong usage, 130 interrupted.
`

// parseFlags reads the command line. On an error it has said what is wrong; with
// -h it has printed the usage and the error is [flag.ErrHelp].
func parseFlags(args []string, stdout, stderr io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("serve-cache", flag.ContinueOnError)
	f.StringVar(&o.dir, "dir", "", "the `DIR`ectory of tarballs (default ~/pytorch-data/docker)")
	f.StringVar(&o.addr, "addr", "127.0.0.1:5000", "where to listen, as `HOST:PORT`; port 0 is any that is free")
	f.BoolVar(&o.verbose, "v", false, "log each request on standard error")
	err := command.ParseFlags(f, args, stdout, usage, usageExit)
	if err == nil {
		err = o.check(f.Args())
	}
	if err != nil {
		command.SayUsage(stderr, "serve-cache", err)
		return nil, err
	}
	return o, nil
}

// check finds what is wrong with the flags, and fills in defaults.
func (o *options) check(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q: there are only flags", args[0])
	}
	host, _, err := net.SplitHostPort(o.addr)
	switch {
	case err != nil:
		return fmt.Errorf("-addr %q: %w: want HOST:PORT", o.addr, err)
	case host == "": // as ":5000" is most often meant for this machine
		return fmt.Errorf("-addr %q would serve every network that this machine is on: name the HOST, 0.0.0.0 if that is what you want", o.addr)
	}
	o.dir, err = command.Dir(o.dir)
	return err
}
