// Engine-root unpacks images ahead of time, and hands jobs an engine's data root that has
// them.
//
//	engine-root build [-dir DIR] [-engine docker] IMAGE...
//	engine-root clone -mount /var/lib/docker IMAGE
//	engine-root discard /var/lib/docker
//
// The other commands are refresh, list, verify, prune and remove. See "engine-root help" for them,
// and "engine-root help COMMAND" for the flags of each.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/dataroot"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/examples/internal/cli"
	"github.com/dockercache/dockercache/examples/internal/naming"
	"github.com/dockercache/dockercache/examples/internal/report"
	"github.com/dockercache/dockercache/examples/internal/stocked"
	"github.com/dockercache/dockercache/examples/internal/store"
	"github.com/dockercache/dockercache/registry"
)

const notes = `Environment: for a bucket the variables of AWS's SDK.

It needs Linux, root, loop devices, and for build, refresh and verify mkfs.ext4, e2fsck
and the engine's programs. In a container it must be privileged, with the machine's /dev.

Exit codes: 0 all is well, 1 something failed, 2 wrong usage, 3 what was asked for is
not there and nothing else failed: a template, a tarball, a clone; 130 interrupted.
`

// missing is the exit code when all that failed is that something is not there: without a
// template a job can load its image.
const missing = 3

var program = cli.Program{
	Name: "engine-root",
	Usage: `Usage: engine-root COMMAND [flags] [ARGUMENT...]

Unpacks stocked images once, by the engine itself, into a file with its data root: a
template. A job gets a clone of it, mounted, in which its engine finds the images.
On XFS and btrfs a clone takes no time and no space.

  build IMAGE...    make a template that holds the images, from their tarballs
  refresh [NAME...] make templates hold what their tarballs have now, all by default
  clone IMAGE       mount a writable clone of the template of an image
  discard DIR...    unmount clones, which removes them
  list              the templates, and the clones that are mounted
  verify [NAME...]  check templates by the engine's own account, all by default
  prune             remove templates beyond limits, and what killed builds have left
  remove NAME...    remove templates; clones of them go on

Run "engine-root help COMMAND" for the flags of a command.
`,
	Notes: notes,
	Commands: []cli.Program{
		command("build", " IMAGE...", func(o *options, f *cli.FlagSet) {
			imageFlags(o, f)
			f.StringVar(&o.name, "template", "", "what the template's name begins with, `NAME` (default: the name of the first image's tarball)")
			f.Var((*cli.Size)(&o.root.Size), "size", "how much a clone's engine can keep in all, `SIZE`; the file is sparse (default 256GiB)")
			f.BoolVar(&o.build.Whole, "whole", false, "begin with an empty data root, also where there is a template to go on from")
		}, (*options).buildImages),
		command("refresh", " [NAME...]", func(*options, *cli.FlagSet) {}, (*options).refresh),
		command("clone", " IMAGE", func(o *options, f *cli.FlagSet) {
			imageFlags(o, f)
			f.StringVar(&o.name, "template", "", "the `NAME` that the template was built with (default: the name of the image's tarball)")
			f.StringVar(&o.mount, "mount", "", "an empty directory, `DIR`, that becomes the engine's data root")
			f.BoolVar(&o.clone.NoCopy, "no-copy", false, "fail where the file system cannot share blocks, rather than copy")
			o.history.Register(f.FlagSet)
			f.BoolVar(&o.anyVersion, "any-version", false, "clone the template of another version of the engine too, where there is none of this one")
		}, (*options).cloneImage),
		command("discard", " DIR...", func(*options, *cli.FlagSet) {}, (*options).discard),
		command("list", "", func(*options, *cli.FlagSet) {}, (*options).list),
		command("verify", " [NAME...]", func(*options, *cli.FlagSet) {}, (*options).verify),
		command("prune", "", func(o *options, f *cli.FlagSet) {
			f.IntVar(&o.limits.Count, "count", 0, "how many templates may stay, `N`; 0 is no limit")
			f.Var((*cli.Duration)(&o.limits.MaxAge), "age", "how long a template may stay unused, `DURATION`, such as 30d or 36h")
			f.Var((*cli.Size)(&o.limits.MaxBytes), "bytes", "how much of the disk all templates may have, `SIZE`, such as 500GB or 500GiB; what they share with clones counts")
			f.BoolVar(&o.limits.RemoveNewest, "newest", false, "let the newest template of an image go too; those of all engines belong to one image")
			f.BoolVar(&o.limits.DryRun, "dry-run", false, "remove nothing, and print what would be removed")
		}, (*options).prune),
		command("remove", " NAME...", func(*options, *cli.FlagSet) {}, (*options).remove),
	},
}

func main() { cli.Main(program.Run) }

type options struct {
	command, takes, dir, roots, name, mount, branch string
	kind                                            string
	anyVersion                                      bool
	arguments                                       []string
	flags                                           *cli.FlagSet
	naming                                          naming.Flags
	s3                                              store.S3
	engine                                          dataroot.Engine
	root                                            dataroot.Options
	templates                                       *dataroot.Dir // not for discard
	build                                           dataroot.BuildOptions
	clone                                           dataroot.CloneOptions
	limits                                          cache.PruneOptions
	history                                         report.History
	run                                             func(o *options, ctx context.Context, out *cli.Output) error
}

// command makes the program of a command, which takes these arguments.
func command(name, takes string, flags func(o *options, f *cli.FlagSet), run func(o *options, ctx context.Context, out *cli.Output) error) cli.Program {
	return cli.Program{
		Name: "engine-root " + name, Usage: fmt.Sprintf("Usage: engine-root %s [flags]%s\n", name, takes), Notes: notes,
		Setup: func(f *cli.FlagSet) cli.Runner {
			o := &options{command: name, takes: takes, run: run, flags: f}
			if name != "discard" {
				f.StringVar(&o.dir, "dir", "", store.Usage)
				o.s3.RegisterReads(f.FlagSet)
				f.StringVar(&o.roots, "roots", "", "the directory with the templates, `DIR`, which no other user may write to (default: that of the tarballs)")
			}
			switch name {
			case "build", "clone":
				f.StringVar(&o.kind, "engine", string(dataroot.Docker), "the `KIND` of engine: "+engineUsage)
			case "refresh", "verify":
				f.StringVar(&o.kind, "engine", "", "only templates of this `KIND` of engine: "+engineUsage+" (default: all)")
			}
			switch name {
			case "build", "clone", "refresh", "verify":
				f.StringVar(&o.engine.Program, "program", "", "the engine's `PROGRAM` (default dockerd, podman or containerd)")
			}
			switch name {
			case "clone", "verify":
				f.StringVar(&o.root.Below, "below", "", "a directory, `DIR`, on the file system that has the bytes of clones (default: that of the templates)")
			}
			f.JSONFlag("print JSON, one object to a line")
			f.VerboseFlag(cli.VerboseUsage)
			f.Advice(advice)
			flags(o, f)
			return o
		},
	}
}

const engineUsage = "docker, docker-containerd (with containerd's store), podman, or containerd"

func imageFlags(o *options, f *cli.FlagSet) {
	f.StringVar(&o.branch, "branch", "", "the `BRANCH` that the images were built from (default "+naming.DefaultBranch+")")
	o.naming.Register(f.FlagSet)
}

// advice says what to do about an error, "" if that is not known.
func advice(err error) string {
	switch {
	case errors.Is(err, dataroot.ErrNoTemplate):
		return "make one with engine-root build, or load the image with load-image"
	case errors.Is(err, dataroot.ErrUnsupported):
		return "where a data root cannot be mounted, load-image loads the image"
	case errors.Is(err, dataroot.ErrInUse):
		return "stop the engine first"
	}
	return ""
}

// Check finds what is wrong with the arguments and flags, and fills in defaults.
func (o *options) Check(args []string) (err error) {
	if err := cli.FlagsFirst(args, "an argument"); err != nil {
		return err
	}
	o.arguments = args
	switch needed := o.takes != "" && !strings.Contains(o.takes, "["); {
	case o.takes == "" && len(args) > 0:
		return fmt.Errorf("%s takes no argument, %q was given", o.command, args[0])
	case needed && len(args) == 0:
		return fmt.Errorf("%s wants%s", o.command, o.takes)
	case o.command == "clone" && len(args) != 1:
		return fmt.Errorf("clone wants one IMAGE, %d were given", len(args))
	case o.command == "clone" && o.mount == "":
		return errors.New("clone needs -mount DIR")
	case o.engine.Program != "" && o.kind == "":
		return errors.New("-program needs -engine")
	}
	if o.engine.Kind = dataroot.Kind(o.kind); o.kind != "" && !slices.Contains(dataroot.Kinds(), o.engine.Kind) {
		return fmt.Errorf("-engine %q: want one of %v", o.kind, dataroot.Kinds())
	}
	if o.command == "discard" {
		return nil
	}
	if o.command == "build" || o.command == "clone" {
		if err := cli.Images(args); err != nil {
			return err
		}
		if err := o.naming.Check(args); err != nil {
			return err
		}
		if o.branch, err = o.naming.Branch(o.branch); err != nil {
			return err
		}
	}
	if err := o.history.Check(); err != nil {
		return err
	}
	o.dir, err = o.s3.Dir(o.dir, o.flags.FlagSet)
	if err == nil && o.roots == "" {
		if o.roots = o.dir; store.IsBucket(o.dir) {
			return errors.New("-dir is a bucket: -roots DIR says where the templates are")
		}
	}
	return err
}

func (o *options) Run(ctx context.Context, out *cli.Output) int {
	err := error(nil)
	o.root.Logger = out.Log
	if o.command != "discard" {
		o.templates, err = dataroot.Open(o.roots, &o.root)
	}
	if err == nil {
		err = o.run(o, ctx, out)
	}
	if errors.Is(err, dataroot.ErrNoTemplate) || errors.Is(err, stocked.ErrMissing) || errors.Is(err, dataroot.ErrNotClone) {
		out.Report(err)
		if code := out.Code(ctx); code != cli.OK {
			return code
		}
		return missing
	}
	if err != nil {
		out.Fail(err)
	}
	return out.Code(ctx)
}

// base is what the names of an image's templates begin with.
func (o *options) base() (string, error) {
	if o.name != "" {
		return o.name, nil
	}
	names, err := o.naming.Names(o.arguments[0], o.branch, registry.DefaultPlatform().String())
	return strings.TrimSuffix(names.Tarball, ".tar"), err
}

func (o *options) buildImages(ctx context.Context, out *cli.Output) error {
	o.templates.Sweep()
	dir, err := store.Open(ctx, o.dir, nil, &o.s3)
	if err != nil {
		return err
	}
	var images []*tarball.Tarball
	defer func() {
		for _, t := range images {
			_ = t.Close()
		}
	}()
	for _, image := range o.arguments {
		names, err := o.naming.Names(image, o.branch, registry.DefaultPlatform().String())
		if err != nil {
			return err
		}
		t, err := stocked.Find(ctx, dir, image, names)
		if t != nil {
			images = append(images, t)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", image, err)
		}
	}
	base, err := o.base()
	if err != nil {
		return err
	}
	return o.make(ctx, base, o.engine, images, out)
}

// make builds or refreshes a template, and prints what was done.
func (o *options) make(ctx context.Context, base string, engine dataroot.Engine, images []*tarball.Tarball, out *cli.Output) error {
	r, err := o.templates.Build(ctx, base, engine, images, &o.build)
	if err != nil {
		return err
	}
	record := report.NewRoot(o.roots, &r.Template)
	record.Outcome, record.Seconds = string(r.Outcome), r.Took.Seconds()
	out.Print(record, record.Text())
	return nil
}

// refresh builds each template again, for the engine that is here: where there are several of
// one name and kind, the one that was made last says which images are wanted.
func (o *options) refresh(ctx context.Context, out *cli.Output) error {
	o.templates.Sweep()
	dir, err := store.Open(ctx, o.dir, nil, &o.s3)
	if err != nil {
		return err
	}
	latest := map[string]dataroot.Template{}
	var order []string
	err = o.each(ctx, out, func(t *dataroot.Template) error {
		base := t.Base()
		if base == "" || !t.IsOfThisPlatform() {
			return nil
		}
		key := base + " " + string(t.Record.Engine.Kind)
		last, ok := latest[key]
		if !ok {
			order = append(order, key)
		}
		if !ok || t.Record.Made.After(last.Record.Made) {
			latest[key] = *t
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range order {
		t := latest[key]
		if ctx.Err() != nil {
			break
		}
		if err := o.refreshOne(ctx, dir, &t, out); err != nil {
			out.Fail(fmt.Errorf("%s: %w", t.Name, err))
		}
	}
	return nil
}

func (o *options) refreshOne(ctx context.Context, dir store.Store, t *dataroot.Template, out *cli.Output) error {
	var images []*tarball.Tarball
	for _, i := range t.Record.Images {
		image, err := dir.Get(ctx, i.Tarball)
		if err != nil {
			return err
		}
		defer image.Close()
		images = append(images, image)
	}
	return o.make(ctx, t.Base(), o.engineOf(t), images, out)
}

// engineOf is the engine of a template's kind.
func (o *options) engineOf(t *dataroot.Template) dataroot.Engine {
	return dataroot.Engine{Kind: t.Record.Engine.Kind, Program: o.engine.Program}
}

// each calls a function with the templates that were named, or all, of the kind that was asked
// for. An error is reported, and the next one follows.
func (o *options) each(ctx context.Context, out *cli.Output, do func(t *dataroot.Template) error) error {
	all, err := o.templates.List()
	if err != nil {
		return err
	}
	if len(o.arguments) > 0 {
		all = nil
		for _, name := range o.arguments {
			t, err := o.templates.Get(filepath.Base(name))
			if err != nil {
				return err
			}
			all = append(all, t)
		}
	}
	for _, t := range all {
		if ctx.Err() != nil {
			break
		}
		if t.Err != nil {
			out.Fail(t.Err)
		} else if o.kind != "" && t.Record.Engine.Kind != o.engine.Kind {
			continue
		} else if err := do(&t); err != nil {
			out.Fail(err)
		}
	}
	return nil
}

func (o *options) cloneImage(ctx context.Context, out *cli.Output) error {
	o.history.Open("engine-root", cmp.Or(store.Local(o.dir), o.roots), out)
	var phases timing.Recorder
	o.clone.Observer = &phases
	begun := time.Now()
	timing.Begin(&phases, timing.Look)
	c, err := o.cloneTemplate(ctx)
	record := &report.Root{}
	if err == nil {
		record = report.NewClone(o.roots, c)
	}
	o.history.Append(ctx, record.Record(o.arguments[0], begun, &phases, err))
	if err == nil {
		out.Print(record, record.Text())
	}
	return err
}

func (o *options) cloneTemplate(ctx context.Context) (*dataroot.Clone, error) {
	base, err := o.base()
	if err != nil {
		return nil, err
	}
	t, err := o.templates.Find(ctx, base, o.engine)
	if o.anyVersion && errors.Is(err, dataroot.ErrNoTemplate) {
		others, listErr := o.templates.Of(base)
		for _, other := range others {
			if other.Record.Engine.Kind == o.engine.Kind && (err != nil || other.Record.Made.After(t.Record.Made)) {
				t, err = other, nil
			}
		}
		err = errors.Join(err, listErr)
	}
	if err != nil {
		return nil, err
	}
	if err := o.holds(&t); err != nil {
		return nil, err
	}
	return o.templates.Clone(ctx, t.Name, o.mount, &o.clone)
}

// holds returns an error if a template does not hold the image that was asked for: tarballs of
// several tags have the same name.
func (o *options) holds(t *dataroot.Template) error {
	names, err := o.naming.Names(o.arguments[0], o.branch, registry.DefaultPlatform().String())
	if err != nil {
		return err
	}
	_, pinned, isPinned := strings.Cut(o.arguments[0], "@")
	var has []string
	for _, i := range t.Record.Images {
		digest, err := v1.NewHash(pinned)
		if i.Reference == names.RepoTag && (!isPinned || err == nil && i.Is(digest)) {
			return nil
		}
		has = append(has, fmt.Sprintf("%s (%s)", i.Reference, i.Digest))
	}
	return fmt.Errorf("%w: %s holds %s, and not %s: refresh it", dataroot.ErrNoTemplate, t.Name, strings.Join(has, ", "), o.arguments[0])
}

func (o *options) discard(ctx context.Context, out *cli.Output) error {
	var none error
	for _, at := range o.arguments {
		err := dataroot.Discard(ctx, at)
		if errors.Is(err, dataroot.ErrNotClone) || errors.Is(err, os.ErrNotExist) {
			none = errors.Join(none, err)
		} else if err != nil {
			out.Fail(err)
		}
	}
	return none
}

func (o *options) list(ctx context.Context, out *cli.Output) error {
	err := o.each(ctx, out, func(t *dataroot.Template) error {
		record := report.NewRoot(o.roots, t)
		record.Outcome = report.Listed
		out.Print(record, record.Text())
		return nil
	})
	if err != nil {
		return err
	}
	clones, err := dataroot.Clones()
	if errors.Is(err, dataroot.ErrUnsupported) {
		return nil
	}
	for _, c := range clones {
		record := report.NewClone("", &c)
		out.Print(record, record.Text())
	}
	return err
}

func (o *options) verify(ctx context.Context, out *cli.Output) error {
	return o.each(ctx, out, func(t *dataroot.Template) error {
		if !t.IsOfThisPlatform() {
			return fmt.Errorf("%s: it is for %s/%s", t.Name, t.Record.OS, t.Record.Architecture)
		}
		if err := o.templates.Verify(ctx, t.Name, o.engineOf(t)); err != nil {
			return err
		}
		record := report.NewRoot(o.roots, t)
		record.Outcome = report.Verified
		out.Print(record, record.Text())
		return nil
	})
}

func (o *options) prune(ctx context.Context, out *cli.Output) error {
	r, err := o.templates.Prune(ctx, &o.limits)
	outcome := report.Removed
	if o.limits.DryRun {
		outcome = report.WouldRemove
	}
	for _, p := range r.Removed {
		record := report.NewRoot(o.roots, &dataroot.Template{Name: p.Entry.Name, Allocated: p.Entry.Allocated})
		record.Outcome = outcome
		out.Print(record, record.Text())
	}
	return err
}

func (o *options) remove(_ context.Context, out *cli.Output) error {
	for _, name := range o.arguments {
		if err := o.templates.Remove(filepath.Base(name)); err != nil {
			out.Fail(err)
		}
	}
	return nil
}
