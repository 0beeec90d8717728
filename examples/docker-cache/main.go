// Docker-cache stocks a directory with container images as tarballs.
//
//	docker-cache [flags] IMAGE...
//
// Each IMAGE becomes DIR/<name>_<suffix>.tar: the name is its tag without the
// last "-" part, the suffix comes from the branch; -naming and -name make others. See -h
// for the flags and the exit codes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/artifacts"
	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/examples/internal/buildflags"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/naming"
	"github.com/dockercache/dockercache/examples/internal/registryflags"
	"github.com/dockercache/dockercache/examples/internal/report"
	"github.com/dockercache/dockercache/examples/internal/sample"
	"github.com/dockercache/dockercache/examples/internal/stocked"
	"github.com/dockercache/dockercache/examples/internal/store"
	"github.com/dockercache/dockercache/internal/refname"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/tagging"
)

func main() { cli.Main(program.Run) }

type options struct {
	flags       *cli.FlagSet
	dir, branch string
	from        string        // the store to stock from; "" for registries
	platform    string        // -platform
	platforms   []v1.Platform // the same, each once
	naming      naming.Flags
	images      []string
	registry    registryflags.Flags
	client      registry.Options
	build       buildflags.Flags
	request     *artifacts.Request // for the images of a build run; nil with IMAGE
	run         tarball.Run        // that the images come from
	put         cache.PutOptions
	open        cache.Options
	s3          store.S3
	jobs        cli.Count
	sample      bool
	history     report.History
	metrics     report.Metrics
}

var program = cli.Program{
	Name: "docker-cache",
	Usage: `Usage: docker-cache [flags] [-branch BRANCH] IMAGE...
       docker-cache [flags] -allow HOST/REPOSITORY
       docker-cache -sample

Stocks DIR with one tarball for each IMAGE, <name>_<suffix>.tar, ready for
"docker load". An image that is there already, by digest, is left as it is. The
name is the tag without its last "-" part, or as -naming and -name say. A tarball of
another repository's image is not replaced, unless by -replace.

Without IMAGE the images are those that a finished build run names in its
artifacts: the run of the event that started this workflow, or that of -repo and
-run-id. The run is refused unless it succeeded, was started by an allowed event,
and is of the repository's own code; the branch is the run's. The tarball of a
newer run is not replaced.
`,
	Notes: `Environment: GITHUB_TOKEN or GH_TOKEN, for ghcr.io and, with the permission
"actions: read", for artifacts; the variables of AWS's SDK; and what a runner
sets: ACTIONS_ID_TOKEN_REQUEST_URL and _TOKEN, GITHUB_ACTIONS, GITHUB_ACTOR,
GITHUB_API_URL, GITHUB_EVENT_NAME, GITHUB_EVENT_PATH, GITHUB_REPOSITORY,
GITHUB_STEP_SUMMARY.

Exit codes: 0 all is well, 1 at least one image failed, 2 wrong usage,
130 interrupted.
`,
	Setup: func(f *cli.FlagSet) cli.Runner {
		o := &options{flags: f}
		f.StringVar(&o.dir, "dir", "", "the directory to stock, `DIR`, or s3://BUCKET/PREFIX; it must exist (default ~/pytorch-data/docker)")
		f.StringVar(&o.from, "from", "", "take the images from the tarballs that docker-cache has stocked in s3://BUCKET/PREFIX, or in a directory, `DIR`, under the same names; no registry is asked")
		f.JSONFlag("print one JSON object for each image")
		f.QuietFlag()
		f.VerboseFlag(cli.VerboseUsage + ", and what each source gave")
		o.history.Register(f.FlagSet)
		o.metrics.Register(f.FlagSet)
		f.BoolVar(&o.sample, "sample", false, "stock sample images from a registry in this process; needs no network and no other flag")
		f.Section("Images, and what their tarballs are called")
		f.StringVar(&o.branch, "branch", "", "the `BRANCH` that the images were built from (default "+naming.DefaultBranch+"); without IMAGE it must be the run's")
		o.naming.Register(f.FlagSet)
		f.StringVar(&o.platform, "platform", registry.DefaultPlatform().String(), "which image of an index, as `OS/ARCH`[/VARIANT], or several with commas, where names have the platform; an image that is in no index is taken as it is")
		f.BoolVar(&o.put.Replace, "replace", false, "replace the tarball of another repository's image too")
		f.Section("Tarballs in DIR")
		f.Var((*cli.Size)(&o.open.Quota), "quota", "how much all files in DIR may take, as `SIZE`, such as 500GB (default: what the disk has)")
		f.Var((*cli.Mode)(&o.open.Mode), "mode", "the `MODE` of tarballs, in octal (default: 0666 less the umask)")
		f.StringVar(&o.open.Group, "group", "", "the `GROUP` of tarballs, by name or number (default: that of the file system)")
		f.Var((*cli.Mode)(&o.open.DirMode), "dir-mode", "create DIR if it is missing, with this `MODE`, in octal")
		f.DurationVar(&o.open.Grace, "grace", 0, "how long a version that was replaced stays for readers on other machines, `DURATION`; below 0 not at all (default: 1h on network file systems, else not at all)")
		f.BoolVar(&o.put.Verify, "verify", false, "read and hash the tarballs that are there already, and fetch what is damaged in them; what is copied is hashed too, whatever -trust is")
		f.BoolVar(&o.put.Force, "force", false, "replace the tarball of a newer build run too")
		f.BoolVar(&o.put.Preempt, "take-over", false, "make an older build run that is at work on the same tarball give up, instead of waiting for it")
		f.Section("Objects in a bucket")
		o.s3.RegisterReads(f.FlagSet)
		o.s3.RegisterWrites(f.FlagSet)
		f.Section(registries)
		o.naming.RegisterMirrors(f.FlagSet, ", and is tried before the image's own registry, in order")
		f.BoolVar(&o.client.MirrorsMustAgree, "mirrors-must-agree", false, "fail an image whose digest differs between a mirror and its own registry")
		f.BoolVar(&o.client.AllSources, "all-sources", false, "read from all mirrors and the own registry at once, where they have the image")
		o.registry.Register(f.FlagSet)
		o.registry.RoleDuration = cli.Seconds(time.Hour)
		f.Var(&o.registry.RoleDuration, "role-duration", "how long the role's credentials last, 15m to 12h or as seconds, `DURATION`; they are renewed")
		f.Section("How much at a time, how slow, how long")
		o.jobs = 2
		f.Var(&o.jobs, "jobs", "how many images are stocked at a time, `N`")
		o.registry.RegisterLimits(f.FlagSet, &o.open, &o.put.MinRate)
		f.Section("The build run that the images are of")
		o.build.Register(f.FlagSet)
		o.build.RegisterAttempt(f.FlagSet)
		f.Annotate()
		f.Advice(registryflags.Advice(registryflags.Tip{
			Kind: cache.ErrOtherImage,
			Text: "give the tarball another name with -name NAME, or all of them with -naming tag+repository, also where they are loaded; or replace what is there with -replace",
		}, registryflags.Tip{
			Kind: stocked.ErrMissing,
			Text: "stock it there first, with docker-cache -dir and the same flags for names; or leave -from out",
		}))
		return o
	},
}

// registries is the section of the flags that are about registries.
const registries = "Registries"

// Check finds what is wrong with the flags together, and fills in defaults.
func (o *options) Check(args []string) (err error) {
	if err := o.checkPlatforms(); err != nil {
		return err
	}
	if err := errors.Join(o.registry.Check(), o.history.Check()); err != nil {
		return err
	}
	if err := cli.FlagsFirst(args, "an IMAGE"); err != nil {
		return err
	}
	switch build := &o.build; {
	case o.sample && o.registry.RoleARN != "":
		return errors.New("-sample needs no credentials: leave -role-arn out")
	case o.sample && (len(args) > 0 || o.naming.HasMirrors() || o.naming.Scheme.Name != "" || len(build.Allow) > 0 || build.RunID != 0 || build.Repository != ""):
		return errors.New("-sample brings its own images and mirror: leave IMAGE, -name, -mirror and what is about a build out")
	case !o.naming.HasMirrors() && !o.sample && (o.client.MirrorsMustAgree || o.client.AllSources):
		return errors.New("-mirrors-must-agree and -all-sources need a -mirror")
	}
	if len(args) > 0 || o.sample {
		o.branch, err = o.naming.Branch(o.branch)
	} else if o.branch != "" {
		err = o.naming.CheckBranch(o.branch)
	}
	if err != nil {
		return err
	}
	if o.dir != "" || !o.sample { // the sample makes one by default
		if o.dir, err = o.s3.Dir(o.dir, o.flags.FlagSet); err != nil {
			return err
		}
	}
	if o.sample {
		return o.checkFrom()
	}
	for _, image := range args { // the same reference twice is one image, asked for twice
		image = refname.Printable(image) // one with a password is refused, and in the error
		if !slices.Contains(o.images, image) {
			o.images = append(o.images, image)
		}
	}
	if o.request, o.run, err = o.build.Choose(o.images, o.branch, os.Getenv); err != nil {
		return err
	}
	if err := o.naming.Check(o.images); err != nil {
		return err
	}
	return o.checkFrom()
}

// checkFrom finds out what is wrong with -from.
func (o *options) checkFrom() error {
	if o.from == "" {
		return nil
	}
	switch given := o.flags.GivenIn(registries); {
	case o.sample:
		return errors.New("-sample brings its own registry: leave -from out")
	case given != "":
		return fmt.Errorf("%s is about registries, and with -from none is asked: leave it out", given)
	case o.from == o.dir:
		return fmt.Errorf("-from %s is what -dir names", o.from)
	}
	if o.platform != registry.DefaultPlatform().String() {
		if err := o.naming.NeedsPlatform("-platform " + o.platform + " would choose nothing"); err != nil {
			return err
		}
	}
	return o.s3.Check("from", o.from)
}

// checkPlatforms finds out which platforms are wanted.
func (o *options) checkPlatforms() error {
	for text := range strings.SplitSeq(o.platform, ",") {
		p, err := registry.ParsePlatform(text)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(o.platforms, p.Equals) {
			o.platforms = append(o.platforms, p)
		}
	}
	if len(o.platforms) > 1 {
		return o.naming.NeedsPlatform("-platform " + o.platform)
	}
	return nil
}

// Run does what was asked for, and reports it in full also when it fails.
func (o *options) Run(ctx context.Context, out *cli.Output) int {
	limited, end := o.registry.LimitRun(ctx)
	defer end()
	if o.sample {
		return o.stockSample(ctx, limited, out)
	}
	if o.request != nil {
		var err error
		if o.images, o.branch, o.run, err = buildflags.Images(limited, o.request, o.naming.CheckBranch, os.Getenv, out); err != nil {
			return buildflags.Code(ctx, err, out)
		}
		if err := o.naming.CheckMirrors(o.images); err != nil {
			return buildflags.Code(ctx, err, out)
		}
	}
	out.Remind(o.naming.Remark(o.images, o.branch))
	results := o.stockAll(limited, out)
	var notes []string
	summary := os.Getenv("GITHUB_STEP_SUMMARY")
	if summary != "" {
		if saved := o.history.Saved(savedDays); saved != "" {
			notes = append(notes, saved)
		}
	}
	report.Summarize(out, results, summary, notes...)
	return out.Code(ctx)
}

// savedDays is of how many days a summary says what loads have saved.
const savedDays = 7

// stockSample stocks the sample's images by the same code as any others.
func (o *options) stockSample(ctx, limited context.Context, out *cli.Output) int {
	s, err := sample.Start(o.dir)
	if err != nil {
		out.Fail(fmt.Errorf("set up the sample: %w", err))
		return out.Code(ctx)
	}
	o.images, o.dir, o.naming.Mirrors = s.Images, s.Dir, tagging.MirrorRules{{At: s.Mirror}}
	o.client.Keychain = authn.NewMultiKeychain() // empty: the sample needs no credentials
	results := o.stockAll(limited, out)
	out.Stop()
	code := out.Code(ctx)
	s.End(code == cli.OK)
	if code == cli.OK {
		out.Remark(report.HowToLoad(o.dir, o.branch, results))
	}
	return code
}

// stockAll stocks every image, some at a time, and reports each. One that fails does
// not stop the others.
func (o *options) stockAll(ctx context.Context, out *cli.Output) []*report.Stocked {
	o.open.Logger = out.Log
	began := time.Now()
	client, err := o.registry.Client(out, o.client)
	var dir, from store.Store
	if err == nil {
		dir, err = store.Open(ctx, o.dir, &o.open, &o.s3)
	}
	if err == nil && o.from != "" {
		if from, err = store.Open(ctx, o.from, &cache.Options{Logger: out.Log}, &o.s3); err != nil {
			err = fmt.Errorf("-from: %w", err)
		}
	}
	find := o.resolve(client, out)
	if from != nil {
		find = o.takeFrom(from)
	}
	if err != nil {
		out.Fail(err) // once for all images
	}
	o.history.Open("docker-cache", store.Local(o.dir), out)
	results := make([]*report.Stocked, len(o.images)*len(o.platforms))
	var group errgroup.Group
	group.SetLimit(int(o.jobs))
	for i := range results {
		image, platform := o.images[i/len(o.platforms)], o.platforms[i%len(o.platforms)]
		group.Go(func() error {
			r, imageErr := &report.Stocked{Image: image, Platform: platform.String(), OneOfSeveral: len(o.platforms) > 1, Start: time.Now()}, err
			if err == nil {
				if imageErr = o.stock(ctx, find, dir, platform, r, out); imageErr != nil {
					out.Fail(fmt.Errorf("%s: %w", r.What(), imageErr))
				}
			}
			r.End(imageErr, out.Advice(imageErr))
			r.Late = errors.Is(imageErr, registryflags.ErrRunTime)
			r.Log(out)
			if err == nil {
				o.history.Append(ctx, r.Record())
			}
			results[i] = r
			out.Print(r, r.Text())
			return nil
		})
	}
	_ = group.Wait() // no function returns an error
	o.metrics.Stocked(out, began, results)
	if ctx.Err() == nil && store.Local(o.dir) != "" {
		if why := report.CannotPay(ctx, results); why != "" {
			out.Warn(why)
		}
	}
	out.Remind(report.Late(ctx, results))
	return results
}

// A finder finds an image, and where it came from. end must be called in the end.
type finder func(ctx context.Context, platform v1.Platform, image string, names tagging.Names) (remote cache.Remote, from tarball.Provenance, end func(), err error)

// resolve returns what finds images in registries.
func (o *options) resolve(client *registry.Client, out *cli.Output) finder {
	return func(ctx context.Context, platform v1.Platform, image string, _ tagging.Names) (cache.Remote, tarball.Provenance, func(), error) {
		from := tarball.Provenance{Branch: o.branch, Run: o.run}
		mirrors, err := o.naming.Mirrors.Mirrors(image)
		if err != nil {
			return nil, from, nil, err
		}
		remote, err := client.Resolve(ctx, platform, append(mirrors, image)...)
		if err != nil {
			return nil, from, nil, err
		}
		if beside := remote.Companions(); len(beside) > 0 {
			out.Note(fmt.Sprintf("docker-cache: %q: not stocked, though the index lists it beside the image: %s", image, registryflags.Companions(beside)))
		}
		return remote, from, func() {}, nil
	}
}

// takeFrom returns what finds images in another store.
func (o *options) takeFrom(from store.Store) finder {
	return func(ctx context.Context, _ v1.Platform, image string, names tagging.Names) (cache.Remote, tarball.Provenance, func(), error) {
		found, err := store.From(ctx, from, image, names)
		if err != nil {
			return nil, tarball.Provenance{}, nil, err
		}
		return found, found.ProvenanceFor(o.run), func() { _ = found.Close() }, nil
	}
}

// stock does the whole job for an image: names, find, stock.
func (o *options) stock(ctx context.Context, find finder, dir store.Store, platform v1.Platform, r *report.Stocked, out *cli.Output) error {
	if ctx.Err() != nil {
		return fmt.Errorf("not begun: %w", context.Cause(ctx))
	}
	ctx, cancel := o.registry.LimitImage(ctx)
	defer cancel()
	if o.request == nil && len(o.build.Allow) > 0 { // else it was checked with the build
		policy := artifacts.Policy{Allow: o.build.Allow}
		if err := policy.CheckReference(r.Image); err != nil {
			return err
		}
	}
	names, err := o.naming.Names(r.Image, o.branch, platform.String())
	if err != nil {
		return err
	}
	if err := o.checkNames(r.Image, platform, names); err != nil {
		return err
	}
	timing.Begin(&r.Timing, timing.Resolve)
	remote, from, end, err := find(ctx, platform, r.Image, names)
	if err != nil {
		return err
	}
	defer end()
	put := o.put
	put.Provenance, put.Group = from, names.Group
	progress, done := out.Track(names.Tarball)
	defer done()
	put.Progress, put.Observer = progress, &r.Timing
	result, err := dir.Stock(ctx, names.Tarball, names.RepoTag, remote, &put)
	r.Source, r.Digest = remote.Source(), remote.Digest().String()
	r.Put(result)
	if err != nil {
		return fmt.Errorf("stock %s from %s: %w", names.Tarball, remote.Source(), registryflags.SoFar(err, result))
	}
	return nil
}

// checkNames returns an error if another image would be written to the same tarball.
// Neither is stocked: which of the two should be is the caller's choice.
func (o *options) checkNames(image string, platform v1.Platform, names tagging.Names) error {
	for i, other := range o.images {
		if n, err := o.naming.Names(other, o.branch, platform.String()); err == nil && other != image && n.Tarball == names.Tarball {
			return fmt.Errorf("argument %d would be written to %s, and so would argument %d, %s: leave one of them out, or give them other names, as with -naming tag+repository", slices.Index(o.images, image)+1, names.Tarball, i+1, other)
		}
	}
	return nil
}
