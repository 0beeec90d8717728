package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/internal/buildflags"
	"github.com/dockercache/dockercache/internal/command"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/tagging"
)

type options struct {
	dir, branch     string
	rules           tagging.Rules
	mirrors         list
	platform        v1.Platform
	plainHTTP       list
	force, takeOver bool
	verify          bool
	quota           byteCount
	mode, dirMode   mode
	group           string
	grace           time.Duration
	mustAgree       bool
	allSources      bool
	jobs            int
	connections     int
	json            bool
	sample          bool
	verbose         bool
	quiet           bool
	images          []string
	build           buildflags.Flags
	run             cache.Run          // that the images come from
	request         *artifacts.Request // for the images of a build run; nil with IMAGE
	roleARN         string
	region          string
	roleDuration    seconds
	keychain        authn.Keychain // nil: newKeychain's
}

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

const usage = `Usage: docker-cache [flags] -branch BRANCH IMAGE...
       docker-cache [flags] -allow HOST/REPOSITORY
       docker-cache -sample

Stocks DIR with one tarball for each IMAGE, <name>_<suffix>.tar, ready for
"docker load". An image that is there already, by digest, is left as it is.

Without IMAGE the images are those that a finished build run names in its
artifacts: the run of the event that started this workflow, or that of -repo and
-run-id. The run is refused unless it succeeded, was started by an allowed event,
and is of the repository's own code; the branch is the run's. The tarball of a
newer run is not replaced.

`

const usageExit = `
Environment: GITHUB_TOKEN or GH_TOKEN, for ghcr.io and, with the permission
"actions: read", for artifacts; the variables of AWS's SDK; and what a runner
sets: ACTIONS_ID_TOKEN_REQUEST_URL and _TOKEN, GITHUB_ACTIONS, GITHUB_ACTOR,
GITHUB_API_URL, GITHUB_EVENT_NAME, GITHUB_EVENT_PATH, GITHUB_REPOSITORY,
GITHUB_STEP_SUMMARY.

Exit codes: 0 all is well, 1 at least one image failed, 2 wrong usage,
130 interrupted.
`

// parseFlags reads the command line. On an error it has said what is wrong; with
// -h it has printed the usage and the error is [flag.ErrHelp].
func parseFlags(args []string, stdout, stderr io.Writer) (*options, error) {
	o := &options{rules: tagging.PyTorchRules(), platform: registry.DefaultPlatform(), roleDuration: seconds(time.Hour)}
	f := flag.NewFlagSet("docker-cache", flag.ContinueOnError)
	f.StringVar(&o.dir, "dir", "", "the `DIR`ectory to stock; it must exist (default ~/pytorch-data/docker)")
	f.StringVar(&o.branch, "branch", "", "the `BRANCH` that the images were built from; required with IMAGE, else it must be the run's")
	f.Var(&o.rules, "rules", "which branch gives which suffix: `BRANCH=SUFFIX`, or PREFIX*=SUFFIX, separated by commas")
	f.Var(&o.mirrors, "mirror", "a `REPOSITORY` to try before the image's own, as HOST/PATH; may be repeated, in order")
	f.BoolVar(&o.mustAgree, "mirrors-must-agree", false, "fail an image that a mirror and its own registry do not have alike")
	f.BoolVar(&o.allSources, "all-sources", false, "read from all mirrors and the own registry at once, where they have the image")
	platform := f.String("platform", o.platform.String(), "which image of an index, as `OS/ARCH`[/VARIANT]; one that is in no index is taken as it is")
	f.Var(&o.plainHTTP, "plain-http", "a registry, as `HOST[:PORT]`, that may be spoken to without TLS; may be repeated")
	f.StringVar(&o.roleARN, "role-arn", "", "the AWS role, by its `ARN`, that a GitHub job with \"permissions: id-token: write\" assumes to read ECR (default: what AWS's own variables and files say)")
	f.StringVar(&o.region, "region", "", "the AWS `REGION` to ask for the role (default: AWS's own variables)")
	f.Var(&o.roleDuration, "role-duration", "how long the role's credentials last, 15m to 12h or as seconds, `DURATION`; they are renewed")
	f.IntVar(&o.jobs, "jobs", 2, "how many images are stocked at a time, `N`")
	f.IntVar(&o.connections, "connections", cache.DefaultConnections, "how many ranges are read at a time, `N`, over all images")
	o.build.Register(f)
	f.Int64Var(&o.run.Attempt, "run-attempt", 0, "with IMAGE and -run-id: which attempt of the run it was, `N` (default: the event's, with its run)")
	f.BoolVar(&o.force, "force", false, "replace the tarball of a newer build run too")
	f.BoolVar(&o.takeOver, "take-over", false, "make an older build run that is at work on the same tarball give up, instead of waiting for it")
	f.BoolVar(&o.verify, "verify", false, "read and hash the tarballs that are there already, and fetch what is damaged in them")
	f.Var(&o.quota, "quota", "how much all files in DIR may take, as `SIZE`, such as 500GB (default: what the disk has)")
	f.Var(&o.mode, "mode", "the `MODE` of tarballs, in octal (default: 0666 less the umask)")
	f.StringVar(&o.group, "group", "", "the `GROUP` of tarballs, by name or number (default: as the file system has it)")
	f.Var(&o.dirMode, "dir-mode", "create DIR if it is missing, with this `MODE`, in octal")
	f.DurationVar(&o.grace, "grace", 0, "how long a version that was replaced stays for readers on other machines, `DURATION`; below 0 not at all (default: 1h on network file systems, else not at all)")
	f.BoolVar(&o.json, "json", false, "print one JSON object for each image")
	f.BoolVar(&o.quiet, "quiet", false, "show no progress on standard error")
	f.BoolVar(&o.verbose, "v", false, "log on standard error what is tried")
	f.BoolVar(&o.sample, "sample", false, "stock sample images from a registry in this process; needs no network and no other flag")

	err := command.ParseFlags(f, args, stdout, usage, usageExit)
	if err == nil {
		o.images = f.Args()
		o.platform, err = registry.ParsePlatform(*platform)
	}
	if err == nil {
		err = o.check()
	}
	if err != nil {
		buildflags.SayUsage(stderr, "docker-cache", err)
		return nil, err
	}
	return o, nil
}

// check finds what is wrong with the flags together, and fills in defaults.
func (o *options) check() error {
	for _, host := range o.plainHTTP {
		if host == "" || strings.ContainsAny(host, "/ ") {
			return fmt.Errorf("-plain-http %q: want HOST or HOST:PORT, without a scheme", host)
		}
	}
	if o.connections < 1 {
		return fmt.Errorf("-connections %d: want 1 or more", o.connections)
	}
	if o.sample && o.roleARN != "" {
		return errors.New("-sample needs no credentials: leave -role-arn out")
	}
	if _, err := newKeychain(o, nil, nil); err != nil {
		return fmt.Errorf("-role-arn, -region, -role-duration: %w", err)
	}
	if o.jobs < 1 {
		return fmt.Errorf("-jobs %d: want 1 or more", o.jobs)
	}
	if len(o.mirrors) == 0 && !o.sample && (o.mustAgree || o.allSources) {
		return errors.New("-mirrors-must-agree and -all-sources need a -mirror")
	}
	if o.sample {
		if len(o.images) > 0 || len(o.mirrors) > 0 || len(o.build.Allow) > 0 || o.build.RunID != 0 || o.build.Repository != "" {
			return errors.New("-sample brings its own images and mirror: leave IMAGE, -mirror and what is about a build out")
		}
		if o.branch == "" {
			o.branch = "main"
		}
		_, err := tagging.Suffix(o.branch, o.rules)
		return err
	}
	if i := slices.IndexFunc(o.images, func(s string) bool { return strings.HasPrefix(s, "-") }); i >= 0 {
		return fmt.Errorf("%q comes after an IMAGE: flags go first", o.images[i])
	}
	if len(o.images) > 0 && o.branch == "" {
		return errors.New("-branch is required: which branch were the images built from?")
	}
	if o.branch != "" {
		if _, err := tagging.Suffix(o.branch, o.rules); err != nil {
			return err
		}
	}
	if err := o.checkBuild(os.Getenv); err != nil {
		return err
	}
	// The same reference twice is one image, asked for twice.
	seen := map[string]bool{}
	o.images = slices.DeleteFunc(o.images, func(s string) bool { again := seen[s]; seen[s] = true; return again })
	for _, m := range o.mirrors {
		if _, err := tagging.Mirror("x:check-the-mirror-alone", m); err != nil {
			return fmt.Errorf("-mirror: %w", err)
		}
	}
	var err error
	o.dir, err = command.Dir(o.dir)
	return err
}
