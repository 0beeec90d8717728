// Load-image brings container images from a directory of tarballs into an engine,
// sending no more than the engine lacks.
//
//	load-image [-dir DIR] [-branch BRANCH] IMAGE... || docker pull ...
//
// See -h for the flags and the exit codes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"sync"
	"time"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/engineflags"
	"github.com/dockercache/dockercache/examples/internal/naming"
	"github.com/dockercache/dockercache/examples/internal/report"
	"github.com/dockercache/dockercache/examples/internal/stocked"
	"github.com/dockercache/dockercache/examples/internal/store"
	"github.com/dockercache/dockercache/internal/refname"
	"github.com/dockercache/dockercache/registry"
)

var program = cli.Program{
	Name: "load-image",
	Usage: `Usage: load-image [flags] IMAGE...

Makes the container engine of this machine have each IMAGE, from the tarball that
docker-cache has stocked for it in DIR, under the same name. An image that the
engine already has is left as it is; of others only those layers are sent that no
local image has. A file of that name that docker save has written is sent whole.

The engine is the one that Docker's client would use: DOCKER_HOST, DOCKER_CONTEXT,
or the current context in Docker's config file. podman is one too, by its socket.
For containerd its program ctr is needed, and CONTAINERD_NAMESPACE says where.
`,
	Notes: `Environment: DOCKER_HOST, DOCKER_CONTEXT, DOCKER_CONFIG, DOCKER_TLS_VERIFY,
DOCKER_TLS, DOCKER_CERT_PATH, XDG_RUNTIME_DIR, TMPDIR; for a bucket the variables
of AWS's SDK.

Exit codes: 0 all images are there, 1 at least one failed, 2 wrong usage,
3 tarballs are missing and nothing else failed, 130 interrupted.
`,
	Setup: func(f *cli.FlagSet) cli.Runner {
		o := &options{flags: f.FlagSet}
		f.StringVar(&o.dir, "dir", "", store.Usage)
		o.s3.RegisterReads(f.FlagSet)
		f.StringVar(&o.branch, "branch", "", "the `BRANCH` that the images were built from (default "+naming.DefaultBranch+")")
		o.naming.Register(f.FlagSet)
		f.StringVar(&o.platform, "platform", "", "the platform of the images, as `OS/ARCH`[/VARIANT], where it is part of the tarball's name (default "+registry.DefaultPlatform().String()+", this machine's)")
		o.at.Register(f.FlagSet, &o.load)
		f.BoolVar(&o.load.Whole, "whole", false, "send the whole tarball, also when the engine has layers of it")
		o.history.Register(f.FlagSet)
		o.metrics.Register(f.FlagSet)
		f.JSONFlag("print one JSON object for each image")
		f.QuietFlag()
		f.VerboseFlag(cli.VerboseUsage)
		return o
	},
}

// noTarball is the exit code when all that failed is that tarballs are missing: a
// job can pull those images.
const noTarball = 3

// savedNote is the remark about a file of the workflow that this module replaces.
const savedNote = "written by docker save, not by docker-cache: it is sent whole each time, until docker-cache stocks the image"

func main() { cli.Main(program.Run) }

type options struct {
	flags                 *flag.FlagSet
	dir, branch, platform string
	s3                    store.S3
	naming                naming.Flags
	load                  loader.Options
	images                []string
	at                    engineflags.Flags
	openDir               func() (store.Store, error) // once for all images
	engine                loader.Engine
	sent                  bool // anything to the engine
	history               report.History
	metrics               report.Metrics
}

func (o *options) Check(args []string) (err error) {
	for _, image := range args {
		o.images = append(o.images, refname.Printable(image)) // one with a password is refused, and in the error
	}
	if err := cli.Images(args); err != nil {
		return err
	}
	if err := errors.Join(o.naming.Check(args), o.history.Check()); err != nil {
		return err
	}
	if o.branch, err = o.naming.Branch(o.branch); err != nil {
		return err
	}
	if err := o.checkPlatform(); err != nil {
		return err
	}
	if err := o.at.Check(); err != nil {
		return err
	}
	o.dir, err = o.s3.Dir(o.dir, o.flags)
	return err
}

// checkPlatform makes the platform what docker-cache has put into names.
func (o *options) checkPlatform() error {
	platform := registry.DefaultPlatform()
	if o.platform != "" {
		if err := o.naming.NeedsPlatform("-platform " + o.platform + " would choose nothing"); err != nil {
			return err
		}
		var err error
		if platform, err = registry.ParsePlatform(o.platform); err != nil {
			return err
		}
	}
	o.platform = platform.String()
	return nil
}

// Run loads one image after the other: an engine unpacks on one processor, and writes
// to one disk.
func (o *options) Run(ctx context.Context, out *cli.Output) int {
	o.openDir = sync.OnceValues(func() (store.Store, error) { return store.Open(ctx, o.dir, nil, &o.s3) })
	o.history.Open("load-image", store.Local(o.dir), out)
	missing, began := 0, time.Now()
	var results []*report.Loaded
	for _, image := range o.images {
		if ctx.Err() != nil {
			break
		}
		r, outcome := &report.Loaded{Image: image, Start: time.Now()}, report.Failed
		err := o.loadImage(ctx, r, out)
		switch {
		case errors.Is(err, stocked.ErrMissing):
			missing, outcome = missing+1, report.Missing
			out.Report(fmt.Errorf("%q: %w", image, err))
		case err != nil:
			out.Fail(fmt.Errorf("%q: %w", image, err))
		}
		o.sent = o.sent || r.BytesStreamed > 0
		r.End(err, outcome, out.Advice(err))
		o.history.Append(ctx, r.Record())
		results = append(results, r)
		out.Print(r, r.Text())
	}
	o.metrics.Loaded(out, began, results)
	o.advise(ctx, out)
	if code := out.Code(ctx); code != cli.OK || missing == 0 {
		return code
	}
	return noTarball
}

// advise prints what would make loads faster, if anything was loaded.
func (o *options) advise(ctx context.Context, out *cli.Output) {
	adviser, ok := o.engine.(loader.Adviser)
	if !ok || !o.sent || ctx.Err() != nil {
		return
	}
	for _, advice := range adviser.Advice(ctx) {
		out.Remind(advice)
	}
}

func (o *options) loadImage(ctx context.Context, r *report.Loaded, out *cli.Output) error {
	names, err := o.naming.Names(r.Image, o.branch, o.platform)
	if err != nil {
		return err
	}
	timing.Begin(&r.Timing, timing.Look)
	dir, err := o.openDir()
	if err != nil {
		return err
	}
	load := o.load
	t, err := stocked.Find(ctx, dir, r.Image, names)
	if local, ok := dir.(*cache.Dir); ok && errors.Is(err, tarball.ErrNotTarball) {
		if t, err = stocked.FindSaved(local, r.Image, names); err == nil {
			r.Note = savedNote
			load.Whole, load.NoPull = true, true // it cannot be read in any order as fast
		}
	}
	if t != nil {
		defer t.Close()
		r.Tarball, r.BytesTotal = t.Name(), t.Layout.Size()
		if r.Note == "" { // else the file may have no manifest
			r.Digest = t.Image.Digest().String()
		}
	}
	timing.Begin(&r.Timing, timing.Find)
	if err == nil && o.engine == nil {
		o.engine, err = loader.Open(ctx, o.at.Host)
	}
	if err != nil {
		return err
	}
	r.Engine = loader.Product(o.engine)
	progress, end := out.Track(names.Tarball)
	defer end()
	load.Progress, load.Unpacking, load.Observer, load.Logger = progress, progress, &r.Timing, out.Log
	done, err := loader.Load(ctx, o.engine, t, &load)
	r.Outcome, r.BytesStreamed, r.BytesTotal = string(done.Outcome), done.Streamed, done.Total
	if err == nil && r.Note == "" {
		_ = dir.Touch(ctx, names.Tarball) // it may have been removed meanwhile
	}
	return err
}
