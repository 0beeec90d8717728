// Cache-admin looks after a directory of tarballs that docker-cache stocks.
//
//	cache-admin COMMAND [flags] [ARGUMENT...]
//
// The commands are list, verify, prune, info, advise and report. See "cache-admin help" for them, and
// "cache-admin help COMMAND" for the flags of each.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/advise"
	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/cache/loader"
	"github.com/dockercache/dockercache/examples/internal/admin"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/registryflags"
	"github.com/dockercache/dockercache/examples/internal/sample"
	"github.com/dockercache/dockercache/examples/internal/store"
)

const notes = `Environment: for a bucket the variables of AWS's SDK; for advise those by which
Docker's client finds its engine, such as DOCKER_HOST.

Exit codes: 0 all is well, 1 something failed or is damaged, 2 wrong usage,
130 interrupted.
`

var program = cli.Program{
	Name: "cache-admin",
	Usage: `Usage: cache-admin COMMAND [flags] [ARGUMENT...]

Looks after a directory of tarballs that docker-cache stocks.

  list              what is in it, when it was last used, what it shares
  verify [NAME...]  read whole tarballs, all by default, and name what is damaged
  prune             remove tarballs, and engine-root's templates, beyond the limits,
                    the least recently used first, and what dead writers have left
  info FILE         what is in a tarball, without reading its layers
  advise IMAGE      measure for a minute, and say what each way to give the image to
                    jobs costs, and which of them pays
  report            what the programs did with it, where their time
                    went, and what that saved against plain pulls

Run "cache-admin help COMMAND" for the flags of a command.
`,
	Notes: notes,
	Commands: []cli.Program{
		command("list", "", noFlags, inDir(func(ctx context.Context, o *options, dir store.Store, out *cli.Output) error {
			return admin.List(ctx, dir, out)
		})),
		command("verify", " [NAME...]", verifyFlags, inDir(func(ctx context.Context, o *options, dir store.Store, out *cli.Output) error {
			if !o.repairs {
				return admin.Verify(ctx, dir, o.arguments, nil, out)
			}
			ctx, end := o.repair.Registry.LimitRun(ctx)
			defer end()
			return admin.Verify(ctx, dir, o.arguments, &o.repair, out)
		})),
		command("prune", "", pruneFlags, inDir(func(ctx context.Context, o *options, dir store.Store, out *cli.Output) error {
			return admin.Prune(ctx, dir, &o.limits, out)
		})),
		command("info", " FILE", noFlags, func(ctx context.Context, o *options, out *cli.Output) error {
			return admin.Info(ctx, o.dir, o.arguments[0], &o.s3, out)
		}),
		command("advise", " IMAGE", adviseFlags, runAdvise),
		command("report", "", reportFlags, func(_ context.Context, o *options, out *cli.Output) error {
			return admin.Report(o.dir, &o.report, out)
		}),
	},
}

func main() { cli.Main(program.Run) }

type options struct {
	dir          string
	arguments    []string
	flags        *cli.FlagSet
	open         cache.Options
	s3           store.S3
	repairs      bool
	repair       admin.Repair
	limits       cache.PruneOptions
	report       admin.ReportOptions
	advisor      admin.Advisor
	host, engine string // of advise
	sample       bool   // the same

	// Of the command: what it takes, and what is wrong with its own flags; nil: nothing.
	name, takes string
	check       func() error
	run         run
}

// A run is what a command does.
type run func(ctx context.Context, o *options, out *cli.Output) error

// inDir opens the directory, or the bucket, for a command that needs it.
func inDir(do func(ctx context.Context, o *options, dir store.Store, out *cli.Output) error) run {
	return func(ctx context.Context, o *options, out *cli.Output) error {
		dir, err := store.Open(ctx, o.dir, &o.open, &o.s3)
		if err != nil {
			return err
		}
		return do(ctx, o, dir, out)
	}
}

func noFlags(*options, *cli.FlagSet) {}

// command makes the program of a command, which takes these arguments.
func command(name, takes string, flags func(o *options, f *cli.FlagSet), run run) cli.Program {
	return cli.Program{
		Name: "cache-admin " + name, Usage: fmt.Sprintf("Usage: cache-admin %s [flags]%s\n", name, takes), Notes: notes,
		Setup: func(f *cli.FlagSet) cli.Runner {
			o := &options{name: name, takes: takes, run: run, flags: f}
			f.StringVar(&o.dir, "dir", "", store.Usage)
			o.s3.RegisterReads(f.FlagSet)
			f.JSONFlag("print JSON, one object to a line")
			f.Advice(admin.Advice)
			flags(o, f)
			return o
		},
	}
}

// withRepair is the section of the flags that are for -repair.
const withRepair = "With -repair"

func verifyFlags(o *options, f *cli.FlagSet) {
	f.BoolVar(&o.repairs, "repair", false, "fetch what is damaged from the registry that it came from, by its digest")
	f.QuietFlag()
	f.VerboseFlag(cli.VerboseUsage + ", and what each source gave")
	f.Section(withRepair)
	o.s3.RegisterWrites(f.FlagSet)
	o.repair.Registry.Register(f.FlagSet)
	o.repair.Registry.RegisterLimits(f.FlagSet, &o.open, &o.repair.Options.MinRate)
}

func pruneFlags(o *options, f *cli.FlagSet) {
	f.IntVar(&o.limits.Count, "count", 0, "how many tarballs and templates may stay, `N`; 0 is no limit")
	f.Var((*cli.Duration)(&o.limits.MaxAge), "age", "how long one may stay unused, `DURATION`, such as 30d or 36h")
	f.Var((*cli.Size)(&o.limits.MaxBytes), "bytes", "how much of the disk all of them may have, `SIZE`, such as 500GB or 500GiB")
	f.Var((*cli.Size)(&o.limits.LowWater), "low-water", "when they have more than -bytes, remove until they have no more than this `SIZE` (default that of -bytes)")
	f.BoolVar(&o.limits.RemoveNewest, "newest", false, "let the newest tarball and template of an image go too; those of all branches belong to one image")
	f.BoolVar(&o.limits.Foreign, "foreign", false, "remove what other programs, such as docker save, have left under names of tarballs; what may be a damaged tarball stays")
	f.BoolVar(&o.limits.DryRun, "dry-run", false, "remove nothing, and print what would be removed")
}

func reportFlags(o *options, f *cli.FlagSet) {
	f.Var((*cli.Since)(&o.report.Since), "since", "leave out what was before this `TIME`: a date such as 2026-11-26, in UTC, or how long ago, such as 7d")
	f.StringVar(&o.report.Plot, "plot", "", "write a picture of where the time went to this `FILE`, as SVG")
	o.check = func() error {
		if store.IsBucket(o.dir) {
			return errors.New("there is no log in a bucket: give -dir the directory that -history-dir named")
		}
		return nil
	}
}

func adviseFlags(o *options, f *cli.FlagSet) {
	a := &o.advisor
	f.Float64Var(&a.Fleet.JobsPerDay, "jobs-per-day", 100, "how many jobs a day need the image, on all machines, `N`")
	f.IntVar(&a.Fleet.Machines, "machines", 10, "how many machines there are, `N`")
	f.Float64Var(&a.Fleet.BuildsPerDay, "builds-per-day", 1, "how many builds of the image there are a day, `N`")
	f.Float64Var(&a.Fleet.New, "new", advise.DefaultNew, "the share of the image that is new in a build, `SHARE` from 0 to 1")
	f.Float64Var(&a.Fleet.JobsPerEngine, "jobs-per-engine", 0, "for how many jobs the images in an engine live, `N`: 1 if each job has an engine of its own; 0 is without end")
	f.BoolVar(&a.Shared, "shared", false, "all machines use this directory, also if its file system does not show it")
	f.StringVar(&o.host, "host", "", "where the engine is, as an `ADDRESS`: unix:///PATH, tcp://HOST:PORT, or containerd:///PATH (default: as Docker's client finds it)")
	f.StringVar(&o.engine, "engine", "", "also measure data roots of this `KIND` of engine: "+fmt.Sprint(dataroot.Kinds())+"; needs root")
	f.StringVar(&a.Root.Program, "program", "", "the `PROGRAM` of that engine (default dockerd, podman or containerd)")
	f.StringVar(&a.Platform, "platform", "", "the platform of the image, as `OS/ARCH`[/VARIANT] (default this machine's)")
	f.DurationVar(&a.Time, "sample-time", 5*time.Second, "how long a sample may take, `DURATION`")
	a.Bytes = 256 << 20
	f.Var((*cli.Size)(&a.Bytes), "sample-bytes", "how many bytes a sample may move, `SIZE`; twice as much must be free in the directory")
	f.BoolVar(&o.sample, "sample", false, "advise on a sample image, from a registry in this process that gives 25 MB/s to a connection; needs no network and no IMAGE, and DIR must be empty (default: one that is made below the working directory, and removed)")
	f.StringVar(&a.Plot, "plot", "", "write two pictures: what jobs wait for, to this `FILE`.svg, and how that grows with their number, to FILE-jobs.svg")
	f.VerboseFlag(cli.VerboseUsage)
	f.Advice(registryflags.Advice())
	a.Registry.Register(f.FlagSet)
	o.check = o.checkAdvise
}

// checkAdvise finds what is wrong with the flags of advise.
func (o *options) checkAdvise() (err error) {
	a := &o.advisor
	if a.S3 = &o.s3; !o.sample {
		a.Image = o.arguments[0]
	}
	switch {
	case a.Image == "" && !o.sample:
		return errors.New("the IMAGE is empty: was a variable not set?")
	case a.Time < time.Millisecond || a.Time > 10*time.Minute:
		return fmt.Errorf("-sample-time %v: want 1ms to 10m", a.Time)
	case a.Bytes < 1<<20 || a.Bytes > 1<<40:
		return fmt.Errorf("-sample-bytes %s: want 1MiB to 1TiB", cli.Bytes(a.Bytes))
	case a.Root.Program != "" && o.engine == "":
		return errors.New("-program is for -engine")
	case o.engine != "" && !slices.Contains(dataroot.Kinds(), dataroot.Kind(o.engine)):
		return fmt.Errorf("-engine %s: want one of %v", o.engine, dataroot.Kinds())
	case a.Plot != "" && filepath.Ext(a.Plot) != ".svg":
		return fmt.Errorf("-plot %s: the picture is SVG: want a name with .svg", a.Plot)
	}
	if a.Plot != "" {
		if info, err := os.Stat(filepath.Dir(a.Plot)); err != nil {
			return fmt.Errorf("-plot: %w", err)
		} else if !info.IsDir() {
			return fmt.Errorf("-plot: %s is no directory", filepath.Dir(a.Plot))
		}
	}
	a.Root.Kind = dataroot.Kind(o.engine)
	if err := a.Fleet.Check(); err != nil {
		var field *advise.FieldError
		flags := map[string]string{"Fleet.JobsPerDay": "jobs-per-day", "Fleet.Machines": "machines", "Fleet.BuildsPerDay": "builds-per-day", "Fleet.New": "new", "Fleet.JobsPerEngine": "jobs-per-engine"}
		if errors.As(err, &field) && flags[field.Field] != "" {
			return fmt.Errorf("-%s %v: want %s", flags[field.Field], field.Value, field.Want)
		}
		return err
	}
	if o.host == "" {
		a.Host, err = loader.Environment(os.Getenv)
	} else {
		a.Host, err = loader.ParseHost(o.host)
	}
	return cmp.Or(err, a.Registry.Check())
}

// What the registry of the sample is like: SOCI measured some 25 MB/s for a connection to ECR.
const (
	sampleRate      = 25_000_000
	sampleRoundTrip = 20 * time.Millisecond
)

// runAdvise measures without a directory too, unless one was given.
func runAdvise(ctx context.Context, o *options, out *cli.Output) error {
	cli.CleanUp(time.Minute) // images in the engine, an object, a data root
	given := false
	o.flags.Visit(func(f *flag.Flag) { given = given || f.Name == "dir" })
	if o.sample {
		at := ""
		if given {
			at = o.dir
		}
		s, err := sample.StartSlow(at, sampleRate, sampleRoundTrip)
		if err != nil {
			return fmt.Errorf("set up the sample: %w", err)
		}
		defer s.End(false)
		o.dir, o.advisor.Image = s.Dir, s.Images[0]
		o.advisor.Keychain = authn.NewMultiKeychain() // empty: the sample needs no credentials
	}
	dir, err := store.Open(ctx, o.dir, &o.open, &o.s3)
	if err != nil && given {
		return err
	}
	// This program links what load-image does, nearly.
	if self, err := os.Executable(); err == nil {
		o.advisor.Start = func(ctx context.Context) error { return exec.CommandContext(ctx, self, "help").Run() }
	}
	return admin.Advise(ctx, o.dir, err, dir, &o.advisor, out)
}

// Check finds what is wrong with the arguments and flags, and fills in defaults.
func (o *options) Check(args []string) (err error) {
	if err := cli.FlagsFirst(args, "an argument"); err != nil {
		return err
	}
	switch o.arguments = args; {
	case o.sample && len(args) > 0:
		return fmt.Errorf("-sample brings its own image: leave %q out", args[0])
	case o.takes != "" && !strings.Contains(o.takes, "[") && len(args) != 1 && !o.sample:
		return fmt.Errorf("%s wants one%s, %d were given", o.name, o.takes, len(args))
	case o.takes == "" && len(args) > 0:
		return fmt.Errorf("%s takes no argument, %q was given", o.name, args[0])
	case o.limits.Count < 0:
		return fmt.Errorf("-count %d: want 1 or more", o.limits.Count)
	case o.limits.LowWater > 0 && o.limits.MaxBytes == 0:
		return errors.New("-low-water needs -bytes")
	case o.limits.LowWater > o.limits.MaxBytes:
		return fmt.Errorf("-low-water %s is more than -bytes %s", cli.Bytes(o.limits.LowWater), cli.Bytes(o.limits.MaxBytes))
	case !o.repairs && o.flags.GivenIn(withRepair) != "":
		return fmt.Errorf("%s is for -repair", o.flags.GivenIn(withRepair))
	}
	if err := o.repair.Registry.Check(); err != nil {
		return err
	}
	if o.dir, err = o.s3.Dir(o.dir, o.flags.FlagSet); err != nil || o.check == nil {
		return err
	}
	return o.check()
}

func (o *options) Run(ctx context.Context, out *cli.Output) int {
	if err := o.run(ctx, o, out); err != nil {
		out.Fail(err)
	}
	return out.Code(ctx)
}
