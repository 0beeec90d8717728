// Cache-admin looks after a directory of tarballs that docker-cache stocks.
//
//	cache-admin COMMAND [flags] [ARGUMENT...]
//
// The commands are list, verify, prune, info and report. See "cache-admin help" for them, and
// "cache-admin help COMMAND" for the flags of each.
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/examples/internal/admin"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/store"
)

const notes = `Environment: for a bucket the variables of AWS's SDK.

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
  report            what docker-cache and load-image did with it, where their time
                    went, and what that saved against plain pulls

Run "cache-admin help COMMAND" for the flags of a command.
`,
	Notes: notes,
	Commands: []cli.Program{
		command("list", "", func(*options, *cli.FlagSet) {}, func(ctx context.Context, o *options, dir store.Store, out *cli.Output) error {
			return admin.List(ctx, dir, out)
		}),
		command("verify", " [NAME...]", verifyFlags, func(ctx context.Context, o *options, dir store.Store, out *cli.Output) error {
			if !o.repairs {
				return admin.Verify(ctx, dir, o.arguments, nil, out)
			}
			ctx, end := o.repair.Registry.LimitRun(ctx)
			defer end()
			return admin.Verify(ctx, dir, o.arguments, &o.repair, out)
		}),
		command("prune", "", pruneFlags, func(ctx context.Context, o *options, dir store.Store, out *cli.Output) error {
			return admin.Prune(ctx, dir, &o.limits, out)
		}),
		command("info", " FILE", func(*options, *cli.FlagSet) {}, nil), // needs no directory
		command("report", "", reportFlags, nil),
	},
}

func main() { cli.Main(program.Run) }

type options struct {
	dir, name, takes string
	arguments        []string
	flags            *cli.FlagSet
	open             cache.Options
	s3               store.S3
	repairs          bool
	repair           admin.Repair
	limits           cache.PruneOptions
	report           admin.ReportOptions
	run              func(ctx context.Context, o *options, dir store.Store, out *cli.Output) error
}

// command makes the program of a command, which takes these arguments.
func command(name, takes string, flags func(o *options, f *cli.FlagSet), run func(ctx context.Context, o *options, dir store.Store, out *cli.Output) error) cli.Program {
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
}

// Check finds what is wrong with the arguments and flags, and fills in defaults.
func (o *options) Check(args []string) (err error) {
	if err := cli.FlagsFirst(args, "an argument"); err != nil {
		return err
	}
	switch o.arguments = args; {
	case o.name == "info" && len(args) != 1:
		return fmt.Errorf("info wants one FILE, %d were given", len(args))
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
	if o.dir, err = o.s3.Dir(o.dir, o.flags.FlagSet); err == nil && o.name == "report" && store.IsBucket(o.dir) {
		return errors.New("there is no log in a bucket: give -dir the directory that -history-dir named")
	}
	return err
}

func (o *options) Run(ctx context.Context, out *cli.Output) int {
	err := error(nil)
	if o.name == "report" {
		err = admin.Report(o.dir, &o.report, out)
	} else if o.run == nil {
		err = admin.Info(ctx, o.dir, o.arguments[0], &o.s3, out)
	} else if dir, openErr := store.Open(ctx, o.dir, &o.open, &o.s3); openErr != nil {
		err = openErr
	} else {
		err = o.run(ctx, o, dir, out)
	}
	if err != nil {
		out.Fail(err)
	}
	return out.Code(ctx)
}
