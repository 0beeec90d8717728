package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/internal/command"
	"github.com/dockercache/dockercache/tagging"
)

type options struct {
	dir, branch string
	rules       tagging.Rules
	host        loader.Host
	lockDir     string
	whole       bool
	noPull      bool
	json        bool
	quiet       bool
	verbose     bool
	images      []string
}

const usage = `Usage: load-image [flags] IMAGE...

Makes the container engine of this machine have each IMAGE, from the tarball that
docker-cache has stocked for it in DIR, under the same name. An image that the
engine has already is left as it is; of others only those layers are sent that no
local image has.

The engine is the one that Docker's client would use: DOCKER_HOST, DOCKER_CONTEXT,
or the current context in Docker's config file. podman is one too, by its socket.
For containerd its program ctr is needed, and CONTAINERD_NAMESPACE says where.

`

const usageExit = `
Environment: DOCKER_HOST, DOCKER_CONTEXT, DOCKER_CONFIG, DOCKER_TLS_VERIFY,
DOCKER_TLS, DOCKER_CERT_PATH, TMPDIR.

Exit codes: 0 all images are there, 1 at least one failed, 2 wrong usage,
3 tarballs are missing and nothing else failed, 130 interrupted.
`

// parseFlags reads the command line. On an error it has said what is wrong; with
// -h it has printed the usage and the error is [flag.ErrHelp].
func parseFlags(args []string, stdout, stderr io.Writer) (*options, error) {
	o := &options{rules: tagging.PyTorchRules()}
	f := flag.NewFlagSet("load-image", flag.ContinueOnError)
	f.StringVar(&o.dir, "dir", "", "the `DIR`ectory of tarballs (default ~/pytorch-data/docker)")
	f.StringVar(&o.branch, "branch", "main", "the `BRANCH` that the images were built from")
	f.Var(&o.rules, "rules", "which branch gives which suffix: `BRANCH=SUFFIX`, or PREFIX*=SUFFIX, separated by commas")
	host := f.String("host", "", "where the engine is, as an `ADDRESS`: unix:///PATH, tcp://HOST:PORT without TLS, or containerd:///PATH for a containerd without Docker (default: as Docker's client has it)")
	f.StringVar(&o.lockDir, "lock-dir", "", "a `DIR`ectory of this machine in which those that load the same image find each other (default: in the temporary one)")
	f.BoolVar(&o.whole, "whole", false, "send the whole tarball, also when the engine has layers of it")
	f.BoolVar(&o.noPull, "no-pull", false, "send an archive, also to an engine that would rather pull from loopback")
	f.BoolVar(&o.json, "json", false, "print one JSON object for each image")
	f.BoolVar(&o.quiet, "quiet", false, "show no progress on standard error")
	f.BoolVar(&o.verbose, "v", false, "log on standard error what is tried")
	err := command.ParseFlags(f, args, stdout, usage, usageExit)
	if err == nil {
		o.images = f.Args()
		err = o.check(*host)
	}
	if err != nil {
		command.SayUsage(stderr, "load-image", err)
		return nil, err
	}
	return o, nil
}

// check finds what is wrong with the flags together, and fills in defaults.
func (o *options) check(host string) (err error) {
	if len(o.images) == 0 {
		return errors.New("no IMAGE was given")
	}
	if i := slices.IndexFunc(o.images, func(s string) bool { return strings.HasPrefix(s, "-") }); i >= 0 {
		return fmt.Errorf("%q comes after an IMAGE: flags go first", o.images[i])
	}
	if _, err := tagging.Suffix(o.branch, o.rules); err != nil {
		return err
	}
	if host == "" {
		o.host, err = loader.Environment(os.Getenv)
	} else {
		o.host, err = loader.ParseHost(host)
	}
	if err != nil {
		return err
	}
	o.dir, err = command.Dir(o.dir)
	return err
}
