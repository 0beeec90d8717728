package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/internal/command"
)

type options struct {
	command   string
	dir       string
	json      bool
	quiet     bool
	verbose   bool
	repair    bool
	plainHTTP list
	roleARN   string
	region    string
	count     int
	age       age
	bytes     size
	lowWater  size
	newest    bool
	dryRun    bool
	arguments []string
}

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

const usage = `Usage: cache-admin COMMAND [flags] [ARGUMENT...]

Looks after a directory of tarballs that docker-cache stocks.

  list              what is in it, when it was last used, what it shares
  verify [NAME...]  read whole tarballs, all by default, and name what is damaged
  prune             remove tarballs beyond the limits, the last used first, and
                    what dead writers have left
  info FILE         what is in a tarball, without reading its layers

Run "cache-admin COMMAND -h" for the flags of a command.
`

const usageExit = `
Exit codes: 0 all is well, 1 something failed or is damaged, 2 wrong usage,
130 interrupted.
`

// arguments is what each command takes after its flags.
var arguments = map[string]string{"list": "", "verify": " [NAME...]", "prune": "", "info": " FILE"}

// parseFlags reads the command line. On an error it has said what is wrong; with
// -h it has printed the usage and the error is [flag.ErrHelp].
func parseFlags(args []string, stdout, stderr io.Writer) (*options, error) {
	o := &options{}
	err := o.parse(args, stdout)
	if err != nil {
		command.SayUsage(stderr, "cache-admin", err)
	}
	return o, err
}

func (o *options) parse(args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return errors.New("no COMMAND was given")
	}
	o.command = args[0]
	switch takes, ok := arguments[o.command]; {
	case o.command == "-h" || o.command == "-help" || o.command == "--help":
		fmt.Fprint(stdout, usage, usageExit)
		return flag.ErrHelp
	case strings.HasPrefix(o.command, "-"):
		return fmt.Errorf("%q comes before the COMMAND: flags go after it", o.command)
	case !ok:
		return fmt.Errorf("%q is no COMMAND: want list, verify, prune or info", o.command)
	default:
		f := o.flags()
		if err := command.ParseFlags(f, args[1:], stdout, fmt.Sprintf("Usage: cache-admin %s [flags]%s\n\n", o.command, takes), usageExit); err != nil {
			return err
		}
		o.arguments = f.Args()
		return o.check()
	}
}

// flags are those of the command.
func (o *options) flags() *flag.FlagSet {
	f := flag.NewFlagSet("cache-admin", flag.ContinueOnError)
	f.StringVar(&o.dir, "dir", "", "the `DIR`ectory of tarballs (default ~/pytorch-data/docker)")
	f.BoolVar(&o.json, "json", false, "print JSON, one object to a line")
	switch o.command {
	case "verify":
		f.BoolVar(&o.repair, "repair", false, "fetch what is damaged from the registry that it came from, by its digest")
		f.StringVar(&o.roleARN, "role-arn", "", "with -repair: the AWS role, by its `ARN`, that a GitHub job with \"permissions: id-token: write\" assumes to read ECR")
		f.StringVar(&o.region, "region", "", "with -repair: the AWS `REGION` to ask for the role")
		f.Var(&o.plainHTTP, "plain-http", "a registry, as `HOST[:PORT]`, that may be spoken to without TLS; may be repeated")
		f.BoolVar(&o.quiet, "quiet", false, "show no progress on standard error")
		f.BoolVar(&o.verbose, "v", false, "log on standard error what is tried")
	case "prune":
		f.IntVar(&o.count, "count", 0, "how many tarballs may stay, `N`; 0 is no limit")
		f.Var(&o.age, "age", "how long a tarball may stay unused, `DURATION`, such as 30d or 36h")
		f.Var(&o.bytes, "bytes", "how much of the disk all tarballs may have, `SIZE`, such as 500GB or 500GiB")
		f.Var(&o.lowWater, "low-water", "when they have more than -bytes, remove until they have no more than this `SIZE` (default that of -bytes)")
		f.BoolVar(&o.newest, "newest", false, "let the newest tarball of a name go too; its name is the file's without _SUFFIX.tar")
		f.BoolVar(&o.dryRun, "dry-run", false, "remove nothing, and tell what would be removed")
	}
	return f
}

// check finds what is wrong with the arguments and flags, and fills in defaults.
func (o *options) check() error {
	for _, a := range o.arguments {
		if strings.HasPrefix(a, "-") {
			return fmt.Errorf("%q comes after an argument: flags go first", a)
		}
	}
	switch n := len(o.arguments); {
	case o.command == "info" && n != 1:
		return fmt.Errorf("info wants one FILE, %d were given", n)
	case arguments[o.command] == "" && n > 0:
		return fmt.Errorf("%s takes no argument, %q was given", o.command, o.arguments[0])
	case o.count < 0:
		return fmt.Errorf("-count %d: want 1 or more", o.count)
	case o.lowWater > 0 && o.bytes == 0:
		return errors.New("-low-water needs -bytes")
	case o.lowWater > o.bytes:
		return fmt.Errorf("-low-water %s is more than -bytes %s", &o.lowWater, &o.bytes)
	case len(o.plainHTTP) > 0 && !o.repair:
		return errors.New("-plain-http is for -repair")
	case (o.roleARN != "" || o.region != "") && !o.repair:
		return errors.New("-role-arn and -region are for -repair")
	}
	for _, host := range o.plainHTTP {
		if strings.ContainsAny(host, "/ ") {
			return fmt.Errorf("-plain-http %q: want HOST or HOST:PORT, without a scheme", host)
		}
	}
	var err error
	o.dir, err = command.Dir(o.dir)
	return err
}

func (o *options) limits() *cache.PruneOptions {
	return &cache.PruneOptions{
		Count: o.count, MaxAge: o.age.duration(), MaxBytes: int64(o.bytes), LowWater: int64(o.lowWater), Newest: o.newest, DryRun: o.dryRun,
	}
}
